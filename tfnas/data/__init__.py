"""Images: manifests, the ranking of classes, the subset, CIFAR's format, transforms and loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.data.manifest import (
    ManifestRecord,
    manifest_classes,
    manifest_samples,
    read_manifest,
    read_samples,
)
from tfnas.runtime.lazy import import_later

if TYPE_CHECKING:
    from tfnas.data.cifar import CifarSet, load_transfer_set, transfer_root
    from tfnas.data.image_dataset import ImageDataset
    from tfnas.data.loader import EpochLoader, make_loader
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

__getattr__ = import_later(
    __name__,
    {  # needs torch and torchvision, which a job that only lists images does without
        "CifarSet": "tfnas.data.cifar",
        "load_transfer_set": "tfnas.data.cifar",
        "transfer_root": "tfnas.data.cifar",
        "ImageDataset": "tfnas.data.image_dataset",
        "EpochLoader": "tfnas.data.loader",
        "make_loader": "tfnas.data.loader",
        "image_root": "tfnas.data.stores",
        "eval_transform": "tfnas.data.transforms",
        "train_transform": "tfnas.data.transforms",
    },
)
