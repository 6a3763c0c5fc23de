"""The labelled images of a folder to evaluate on, whichever of the known layouts it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from tfnas.data import ImageDataset, eval_transform, load_transfer_set, manifest_samples, read_manifest
from tfnas.data.cifar_format import FORMATS
from tfnas.data.image_folder import announce_left_out, class_names, scan_class_folders
from tfnas.data.transforms import Transform
from tfnas.runtime.errors import UserError

LAYOUTS = "manifest.csv and images/ of prepare_data, a CIFAR set, val/<class>/*, or <class>/*"


def read_image_set(
    folder: Path, resolution: int, *, images: Path | None = None, exif: str | None = None
) -> tuple[Dataset[Any], list[str]]:
    """The images to validate on, as ((3, R, R) image, label) items, and the names of the classes.

    Args:
        folder: with `LAYOUTS`; the first that is there counts.
        images: where the paths of a manifest lie, when not in images/ beside it.
        exif: apply or ignore EXIF turns; None: as prepare_data was told, and apply them in other folders.

    Raises:
        UserError: the folder has none of the layouts, or its files are damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one with {LAYOUTS}")
    transform = eval_transform(resolution)
    if (folder / "manifest.csv").is_file():
        samples, classes = manifest_samples(read_manifest(folder / "manifest.csv"), "val")
        return ImageDataset(images or folder / "images", samples, transform, exif=exif), classes
    sets = [name for name, form in FORMATS.items() if (folder / form.folder).is_dir()]
    if len(sets) > 1:
        raise UserError(f"{folder}: holds {' and '.join(sets)}; name a folder with one of them")
    if sets:
        found = load_transfer_set(sets[0], folder, False, transform)
        return found, found.classes
    return _class_folders(folder / "val" if (folder / "val").is_dir() else folder, transform, exif)


def _class_folders(root: Path, transform: Transform, exif: str | None) -> tuple[Dataset[Any], list[str]]:
    listing = scan_class_folders(root, [("val", label, name) for label, name in class_names(root, root).items()])
    announce_left_out(root, listing.left_out)
    if listing.broken:
        first = listing.broken[0]
        raise UserError(f"{root / first.path}: is no image ({first.reason}); replace or remove it")
    samples, classes = manifest_samples(listing.records, "val")
    return ImageDataset(root, samples, transform, exif=exif), classes
