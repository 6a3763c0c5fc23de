"""Images: manifests, the ranking of classes, the subset, CIFAR's format, transforms and loaders."""

from tfnas.data.cifar import CifarSet, load_transfer_set, transfer_root
from tfnas.data.image_dataset import ImageDataset
from tfnas.data.loader import EpochLoader, make_loader
from tfnas.data.manifest import (
    ManifestRecord,
    manifest_classes,
    manifest_samples,
    read_manifest,
    read_samples,
)
from tfnas.data.stores import image_root
from tfnas.data.transforms import eval_transform, train_transform

__all__ = [
    "CifarSet",
    "EpochLoader",
    "ImageDataset",
    "ManifestRecord",
    "eval_transform",
    "image_root",
    "load_transfer_set",
    "make_loader",
    "manifest_classes",
    "manifest_samples",
    "read_manifest",
    "read_samples",
    "train_transform",
    "transfer_root",
]
