"""The published networks in timm: `timm.create_model("tf_nas_a")`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tfnas.runtime.errors import UserError
from tfnas.space import Architecture, zoo
from tfnas.space.network import Network
from tfnas.train.transfer import replace_classifier


class TimmNetwork(Network):
    """A network with the methods that timm's scripts call; the weights have the same names."""

    def __init__(self, architecture: Architecture, num_classes: int, dropout: float, drop_connect: float) -> None:
        super().__init__(architecture, num_classes, dropout, drop_connect)
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = architecture.head.out_channels

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) images to (N, C, H / 32, W / 32) features."""
        return self.head(self.blocks(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to (N, num_classes) logits, or to the (N, C) pooled features."""
        pooled = self.pool(x).flatten(1)
        return pooled if pre_logits else self.classifier(pooled)

    def get_classifier(self) -> nn.Module:
        return self.get_submodule("classifier.linear")

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh classifier."""
        replace_classifier(self, num_classes)
        self.num_classes = num_classes


def register_with_timm() -> list[str]:
    """Make the twelve published networks known to timm; returns their names there. Twice is as once.

    timm finds no networks of other packages by itself, and importing tfnas has no effects, so this is a call.

    Raises:
        UserError: timm is not installed.
    """
    try:
        from timm.models import is_model, register_model
    except ImportError:
        raise UserError("timm is not installed; run: pip install timm") from None
    names = []
    for name in zoo.names():
        entrypoint = _entrypoint(name)
        names.append(entrypoint.__name__)
        if not is_model(entrypoint.__name__):
            setattr(sys.modules[__name__], entrypoint.__name__, entrypoint)
            register_model(entrypoint)
    return names


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        return _build(name, pretrained, options)

    build.__name__ = name.lower().replace("-", "_")
    build.__module__ = __name__
    build.__doc__ = f"{name} (ECCV 2020), without weights."
    return build


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """From timm's options: `num_classes`, `drop_rate` (dropout), `drop_path_rate` (drop-connect)."""
    if pretrained:
        raise UserError(f"timm: {name} has no weights to download; load a file with load_state_dict")
    if options.get("in_chans", 3) != 3 or options.get("features_only"):
        raise UserError(f"timm: {name} takes RGB images (in_chans=3) and gives logits (no features_only)")
    classes = options.get("num_classes") or 1000
    rates = [options.get(rate) or 0.0 for rate in ("drop_rate", "drop_path_rate")]
    network = TimmNetwork(zoo.load(name), classes, *rates)
    network.pretrained_cfg = network.default_cfg = _config(classes)  # type: ignore[assignment]
    return network


def _config(num_classes: int) -> dict[str, Any]:
    """What timm's data loading asks for: the paper's 224 x 224 images and the usual normalisation."""
    from tfnas.data.transforms import CROP_FRACTION, MEAN, STD

    return {
        "num_classes": num_classes,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": CROP_FRACTION,
        "interpolation": "bilinear",
        "mean": MEAN,
        "std": STD,
        "first_conv": "stem.conv",
        "classifier": "classifier.linear",
    }


__all__ = ["TimmNetwork", "register_with_timm"]
