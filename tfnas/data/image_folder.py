"""A folder in ImageNet's layout: train/<class>/* and val/<class>/*."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tfnas.data.image_dataset import header_fault
from tfnas.data.manifest import SPLITS, ManifestRecord
from tfnas.runtime.errors import UserError
from tfnas.runtime.progress import track

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision
LAYOUT = "train/<class>/* and val/<class>/*"


def check_image_folder(root: str | Path) -> None:
    """Look at the folders, not at the images.

    Raises:
        UserError: no folder; no train/ or val/ in it; no class; a class of one split only; a class without images.
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file; prepare_data.root must be the folder that holds {LAYOUT}")
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; set prepare_data.root to the one that holds {LAYOUT}")
    classes = {split: _class_folders(root, split) for split in SPLITS}
    for one, other in (SPLITS, SPLITS[::-1]):
        missing = sorted(set(classes[one]) - set(classes[other]))
        if missing:
            raise UserError(
                f"{root / other}: has no folder {missing[0]!r}, which {one}/ has{_more(len(missing))};"
                f" both need the same classes"
            )
    empty = [root / split / name for split in SPLITS for name in classes[split] if not _has_image(root, split, name)]
    if empty:
        raise UserError(
            f"{empty[0]}: holds no image{_more(len(empty))}; add images or remove the class from both splits"
        )


def scan_image_folder(root: str | Path) -> list[ManifestRecord]:
    """Every image, sorted by split, class and name; each file's header is looked at.

    Files of other suffixes and hidden files are no images. Images of a class lie directly in its folder.

    Raises:
        UserError: what `check_image_folder` raises; a folder within a class; a name that is not printable; files
            that are no images (names the first, counts the others).
    """
    root = Path(root)
    check_image_folder(root)
    entries = [
        (split, name, entry)
        for split in SPLITS
        for name in _class_folders(root, split)
        for entry in _images(root / split / name)
    ]
    records, broken = [], []
    for split, name, entry in track(entries, label="prepare_data: images", total=len(entries), unit="image"):
        fault = header_fault(Path(entry.path))
        if fault is not None:
            broken.append(f"{entry.path}: is no image ({fault})")
        else:
            records.append(ManifestRecord(split, name, f"{split}/{name}/{entry.name}", entry.stat().st_size))
    if broken:
        raise UserError(f"{broken[0]}{_more(len(broken))}; replace or remove")
    return records


def _class_folders(root: Path, split: str) -> list[str]:
    folder = root / split
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; {root} must hold {LAYOUT}")
    entries = [entry for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    if not entries:
        raise UserError(f"{folder}: holds no class; {root} must hold {LAYOUT}")
    for entry in entries:
        _check_name(entry)
    return sorted(entry.name for entry in entries)


def _has_image(root: Path, split: str, name: str) -> bool:
    return any(_is_image(entry) for entry in os.scandir(root / split / name))


def _images(folder: Path) -> Iterator[os.DirEntry[str]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        _check_name(entry)
        if _is_image(entry):
            yield entry
        elif entry.is_dir() and not entry.name.startswith("."):
            raise UserError(f"{entry.path}: is a folder; the images of a class lie directly in {folder}")


def _check_name(entry: os.DirEntry[str]) -> None:
    if not entry.name.isprintable():  # a line break, or bytes that are no UTF-8
        raise UserError(f"{Path(entry.path).parent}: name {entry.name!r} cannot stand in the manifest; rename it")


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".")


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
