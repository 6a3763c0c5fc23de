"""Data sets on disk: folders of images, ImageNet, CIFAR's format, and scikit-learn's digits."""
