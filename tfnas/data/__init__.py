"""Images: manifests, the ranking of classes, the subset, CIFAR's format, transforms and loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.data.manifest import ManifestRecord, manifest_classes, manifest_samples, read_manifest, read_samples
from tfnas.jobs.lazy import import_later

if TYPE_CHECKING:
    from tfnas.data.images.loader import EpochLoader, ImageDataset, make_loader
    from tfnas.data.images.stores import image_root
    from tfnas.data.images.transforms import eval_transform, train_transform
    from tfnas.data.sources.cifar import CifarSet, load_transfer_set, transfer_root

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
        "CifarSet": "tfnas.data.sources.cifar",
        "load_transfer_set": "tfnas.data.sources.cifar",
        "transfer_root": "tfnas.data.sources.cifar",
        "ImageDataset": "tfnas.data.images.loader",
        "EpochLoader": "tfnas.data.images.loader",
        "make_loader": "tfnas.data.images.loader",
        "image_root": "tfnas.data.images.stores",
        "eval_transform": "tfnas.data.images.transforms",
        "train_transform": "tfnas.data.images.transforms",
    },
)
