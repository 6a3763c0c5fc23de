"""Images: manifests, the ranking of classes, the subset, CIFAR's format, transforms and loaders."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfnas.data.manifest import (
    ManifestRecord,
    manifest_classes,
    manifest_samples,
    read_manifest,
    read_samples,
)

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

_LATER = {  # needs torch and torchvision, which a job that only lists images does without
    "CifarSet": "tfnas.data.cifar",
    "load_transfer_set": "tfnas.data.cifar",
    "transfer_root": "tfnas.data.cifar",
    "ImageDataset": "tfnas.data.image_dataset",
    "EpochLoader": "tfnas.data.loader",
    "make_loader": "tfnas.data.loader",
    "image_root": "tfnas.data.stores",
    "eval_transform": "tfnas.data.transforms",
    "train_transform": "tfnas.data.transforms",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
