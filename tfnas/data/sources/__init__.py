"""Data sets on disk: folders of images, ImageNet, CIFAR's format, Fashion-MNIST, and scikit-learn's digits."""
