"""A folder of images: train/<class>/* and val/<class>/* as ImageNet has it, or <class>/* alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfnas.compute.seeding import derive_seed
from tfnas.data.manifest import SPLITS, BrokenImage, Listing, ManifestRecord
from tfnas.runtime.errors import UserError
from tfnas.runtime.progress import track

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision
LAYOUT = "train/<class>/* and val/<class>/*"
THREADS = 8  # a folder each; what takes time on a network's disk is waiting

ClassFolder = tuple[str, str, str]  # split, class, path below the root


def check_image_folder(root: str | Path) -> None:
    """Look at the folders, not into those of the classes.

    Raises:
        UserError: no folder; no class in it; a class of one split only.
    """
    class_folders(Path(root))


def scan_image_folder(root: str | Path, *, val_fraction: float = 0.2) -> Listing:
    """Every image, sorted by split, class and name; files are not opened, only their sizes asked for.

    Files of other suffixes and hidden files are no images. Images of a class lie directly in its folder.

    Args:
        val_fraction: of each class, where the folder is not split in train/ and val/.

    Raises:
        UserError: what `check_image_folder` raises; a class without images; a folder within a class; a name that is
            not printable.
    """
    root = Path(root)
    folders = class_folders(root)
    listing = scan_class_folders(root, folders)
    if folders[0][2] == folders[0][1]:
        listing = Listing(_split(listing.records, val_fraction), listing.broken)
    return listing


def class_folders(root: Path) -> list[ClassFolder]:
    """The folders of all classes, by split and class; without train/ and val/ all count as train.

    Raises:
        UserError: what `check_image_folder` raises.
    """
    check_root(root)
    if not any((root / split).exists() for split in SPLITS):
        return [("train", name, name) for name in folder_names(root, root)]
    names = {split: folder_names(root / split, root) for split in SPLITS}
    for one, other in (SPLITS, SPLITS[::-1]):
        missing = sorted(set(names[one]) - set(names[other]))
        if missing:
            raise UserError(
                f"{root / other}: has no folder {missing[0]!r}, which {one}/ has{more(len(missing))};"
                f" both need the same classes"
            )
    return [(split, name, f"{split}/{name}") for split in SPLITS for name in names[split]]


def check_root(root: Path) -> None:
    """Raise UserError unless there is such a folder."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file; prepare_data.root must be the folder that holds {LAYOUT}")
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; set prepare_data.root to the one that holds {LAYOUT}")
    entries_of(root)


def folder_names(folder: Path, root: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones do not count."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; {root} must hold {LAYOUT}")
    names = [entry.name for entry in entries_of(folder) if not entry.name.startswith(".") and entry.is_dir()]
    if not names:
        raise UserError(f"{folder}: holds no class; {root} must hold {LAYOUT}")
    for name in names:
        _check_name(name, folder)
    return names


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name.

    Raises:
        UserError: this user may not look into it.
    """
    try:
        if not os.access(folder, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be opened ({error.strerror}); let this user read and enter it") from None


def scan_class_folders(root: Path, folders: list[ClassFolder]) -> Listing:
    """The images of some folders, in their order; a folder without any is an error."""
    return scan_folders(folders, lambda folder: list_folder(root, folder[2], lambda _: folder[:2]))


def scan_folders(folders: list[ClassFolder], scan: Callable[[ClassFolder], Listing]) -> Listing:
    """Scan several folders at a time, with a progress bar."""
    records: list[ManifestRecord] = []
    broken: list[BrokenImage] = []
    empty = []
    with ThreadPoolExecutor(THREADS) as pool:
        parts = track(pool.map(scan, folders), label="prepare_data: folders", total=len(folders), unit="folder")
        for folder, part in zip(folders, parts, strict=False):
            records += part.records
            broken += part.broken
            if not part.records and not part.broken:
                empty.append(folder[2])
    if empty:
        raise UserError(
            f"{empty[0]}: holds no image{more(len(empty))}; add images or remove the class from both splits"
        )
    return Listing(records, broken)


def list_folder(root: Path, folder: str, label: Callable[[str], tuple[str, str]]) -> Listing:
    """The images of one folder, sorted by name.

    Args:
        folder: below the root.
        label: split and class of a file's name.
    """
    place = root / folder
    records, broken = [], []
    for entry in entries_of(place):
        name = entry.name
        _check_name(name, place)
        if name.startswith("."):
            continue
        if not name.lower().endswith(IMAGE_SUFFIXES):
            if entry.is_dir():
                raise UserError(f"{entry.path}: is a folder; the images of a class lie directly in {place}")
            continue
        path = f"{folder}/{name}"
        fault, size = _look_at(entry)
        if fault is not None:
            broken.append(BrokenImage(path, fault))
        else:
            records.append(ManifestRecord(*label(name), path, size))
    return Listing(records, broken)


def more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _look_at(entry: os.DirEntry[str]) -> tuple[str | None, int]:
    """What is wrong with a file as far as its folder knows, and its size."""
    try:
        if entry.is_dir():
            return "is a folder", 0
        size = entry.stat().st_size
    except OSError as error:
        return error.strerror, 0
    return (None, size) if size else ("is empty", 0)


def _check_name(name: str, folder: Path) -> None:
    if not name.isprintable():  # a line break, or bytes that are no UTF-8
        raise UserError(f"{folder}: name {name!r} cannot stand in the manifest; rename it")


def _split(records: Iterable[ManifestRecord], val_fraction: float) -> list[ManifestRecord]:
    """A share of each class, rounded, as `val`: the first ones in an order that only their paths decide.

    The same for every seed: the split belongs to the data set. Each part has one image at least, where there are two.
    """
    classes: dict[str, list[ManifestRecord]] = {}
    for record in records:
        classes.setdefault(record.class_name, []).append(record)
    result = []
    for members in classes.values():
        shuffled = sorted(members, key=lambda record: (derive_seed(0, "val", record.path), record.path))
        count = min(max(round(val_fraction * len(members)), 1), len(members) - 1)
        result += [record._replace(split="val") for record in shuffled[:count]] + shuffled[count:]
    return sorted(result)
