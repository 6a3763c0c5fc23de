"""Three of ImageNet's classes."""

WNIDS = ("n01440764", "n01443537", "n01484850")
