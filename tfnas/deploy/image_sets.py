"""The labelled images of a folder to evaluate on, whichever of the known layouts it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from tfnas.data import ImageDataset, eval_transform, load_transfer_set, manifest_samples, read_manifest
from tfnas.data.cifar_format import FORMATS
from tfnas.data.image_folder import IMAGE_SUFFIXES
from tfnas.runtime.errors import UserError

LAYOUTS = "manifest.csv and images/ of prepare_data, a CIFAR set, val/<class>/*, or <class>/*"


def read_image_set(folder: Path, resolution: int, *, images: Path | None = None) -> tuple[Dataset[Any], list[str]]:
    """The images to validate on, as ((3, R, R) image, label) items, and the names of the classes.

    Args:
        folder: with `LAYOUTS`; the first that is there counts.
        images: where the paths of a manifest lie, when not in images/ beside it.

    Raises:
        UserError: the folder has none of the layouts, or its files are damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one with {LAYOUTS}")
    transform = eval_transform(resolution)
    if (folder / "manifest.csv").is_file():
        samples, classes = manifest_samples(read_manifest(folder / "manifest.csv"), "val")
        return ImageDataset(images or folder / "images", samples, transform), classes
    sets = [name for name, form in FORMATS.items() if (folder / form.folder).is_dir()]
    if len(sets) > 1:
        raise UserError(f"{folder}: holds {' and '.join(sets)}; name a folder with one of them")
    if sets:
        found = load_transfer_set(sets[0], folder, False, transform)
        return found, found.classes
    root = folder / "val" if (folder / "val").is_dir() else folder
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    samples = [
        (str(path.relative_to(root)), label) for label, name in enumerate(classes) for path in _files(root / name)
    ]
    if not samples:
        raise UserError(f"{folder}: has no images; name a folder with {LAYOUTS}")
    return ImageDataset(root, samples, transform), classes


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
