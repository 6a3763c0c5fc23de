"""A folder of images: train/<class>/* and val/<class>/* as ImageNet has it, or <class>/* alone."""

from __future__ import annotations

import errno
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfnas.compute.seeding import derive_seed
from tfnas.data.images.decoding import image_suffixes, recognize
from tfnas.data.manifest import SPLITS, BrokenImage, Listing, ManifestRecord
from tfnas.jobs.errors import UserError
from tfnas.jobs.progress import announce, track

JUNK = frozenset(
    name.casefold()
    for name in (
        *("lost+found", "__pycache__", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"),
        *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "@tmp"),  # Synology's and QNAP's
        *("__MACOSX", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder"),
        *("$RECYCLE.BIN", "RECYCLER", "System Volume Information", "found.000"),
    )
)  # what systems leave in folders; .DS_Store, .ipynb_checkpoints and the like are hidden
LAYOUT = "train/<class>/* and val/<class>/*"
SHOWN = 8  # kinds of files in one line
THREADS = 8  # a folder each; what takes time on a network's disk is waiting

ClassFolder = tuple[str, str, str]  # split, class, path below the root

logger = logging.getLogger("tfnas.data")


def check_image_folder(root: str | Path) -> None:
    """Look at the folders, not into those of the classes.

    Raises:
        UserError: no folder; no class in it; a class of one split only.
    """
    class_folders(Path(root))


def scan_image_folder(root: str | Path, *, val_fraction: float = 0.2) -> Listing:
    """Every image, sorted by split, class and name; files are not opened, only their sizes asked for.

    A file without suffix is an image where it begins like one. Files of other suffixes, hidden files and what systems
    leave behind (JUNK) are left out, and listed as such. Images of a class lie directly in its folder. A class has the
    composed Unicode form (NFC) of its folder's name, so that folders from a Mac and from elsewhere agree.

    Args:
        val_fraction: of each class, where the folder is not split in train/ and val/.

    Raises:
        UserError: what `check_image_folder` raises; a class without images; a folder within a class; the name of an
            image or a class that a line of text cannot hold.
    """
    root = Path(root)
    folders = class_folders(root)
    listing = scan_class_folders(root, folders)
    if folders[0][2] == folders[0][1]:
        listing = listing._replace(records=_split(listing.records, val_fraction))
    return listing


def announce_left_out(root: Path, left_out: Sequence[BrokenImage], *, listed: str = "") -> None:
    """Say once how many files of which suffix are left out, and why.

    Args:
        listed: where the reader finds all of them.
    """
    kinds = Counter((_suffix(row.path), row.reason) for row in left_out).most_common()
    if kinds:
        parts = [f"{count} {suffix} ({why})" for (suffix, why), count in kinds[:SHOWN]]
        parts += [f"{sum(count for _, count in kinds[SHOWN:])} others"] if len(kinds) > SHOWN else []
        announce(logger, f"{root}: left out {', '.join(parts)}{listed}")


def class_folders(root: Path) -> list[ClassFolder]:
    """The folders of all classes, by split and class; without train/ and val/ all count as train.

    Raises:
        UserError: what `check_image_folder` raises.
    """
    check_root(root)
    if not any((root / split).exists() for split in SPLITS):
        return [("train", label, name) for label, name in class_names(root, root).items()]
    names = {split: class_names(root / split, root) for split in SPLITS}
    for one, other in (SPLITS, SPLITS[::-1]):
        missing = sorted(set(names[one]) - set(names[other]))
        if missing:
            raise UserError(
                f"{root / other}: has no folder {missing[0]!r}, which {one}/ has{more(len(missing))};"
                f" both need the same classes"
            )
    return [(split, label, f"{split}/{name}") for split in SPLITS for label, name in names[split].items()]


def check_root(root: Path) -> None:
    """Raise UserError unless there is such a folder."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file; prepare_data.root must be the folder that holds {LAYOUT}")
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; set prepare_data.root to the one that holds {LAYOUT}")
    entries_of(root)


def class_names(folder: Path, root: Path) -> dict[str, str]:
    """The folders in a folder by their classes, in the order of classes.

    Raises:
        UserError: what `folder_names` raises; one class in two folders.
    """
    names: dict[str, str] = {}
    for name in folder_names(folder, root):
        label = class_name(name)
        if label in names:
            raise UserError(
                f"{folder}: the folders {names[label]!a} and {name!a} are one name in two spellings of Unicode (NFC and"
                f" NFD); put their images into one of them"
            )
        names[label] = name
    return dict(sorted(names.items()))


def class_name(name: str) -> str:
    """The composed form (NFC), which Macs take apart (NFD)."""
    return unicodedata.normalize("NFC", name)


def folder_names(folder: Path, root: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones and junk do not count."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; {root} must hold {LAYOUT}")
    names = [entry.name for entry in entries_of(folder) if not is_junk(entry.name) and entry.is_dir()]
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
    listing = scan_folders(folders, lambda folder: list_folder(root, folder[2], lambda _: folder[:2]))
    left_out = list(listing.left_out)
    for parent in sorted({Path(path).parent for _, _, path in folders}):
        junk = [entry.name for entry in entries_of(root / parent) if is_junk(entry.name) and entry.is_dir()]
        left_out += [BrokenImage(_one_line((parent / name).as_posix()), _why_junk(name)) for name in junk]
    return listing._replace(left_out=left_out)


def scan_folders(folders: list[ClassFolder], scan: Callable[[ClassFolder], Listing]) -> Listing:
    """Scan several folders at a time, with a progress bar."""
    records: list[ManifestRecord] = []
    broken: list[BrokenImage] = []
    left_out: list[BrokenImage] = []
    empty = []
    with ThreadPoolExecutor(THREADS) as pool:
        parts = track(pool.map(scan, folders), label="prepare_data: folders", total=len(folders), unit="folder")
        for folder, part in zip(folders, parts, strict=False):
            records += part.records
            broken += part.broken
            left_out += part.left_out
            if not part.records and not part.broken:
                empty.append(folder[2])
    if empty:
        others = [row for row in left_out if row.path.startswith(f"{empty[0]}/")]
        found = f", but {len(others)} other files, as {others[0].path!r} ({others[0].reason})" if others else ""
        raise UserError(
            f"{empty[0]}: holds no image{more(len(empty))}{found}; add images or remove the class from both splits"
        )
    return Listing(records, broken, left_out)


def list_folder(root: Path, folder: str, label: Callable[[str], tuple[str, str]]) -> Listing:
    """The images of one folder, sorted by name.

    Args:
        folder: below the root.
        label: split and class of a file's name.
    """
    place = root / folder
    records, broken, left_out = [], [], []
    suffixes, known = image_suffixes(), dict[str, str]()
    for entry in entries_of(place):
        name = entry.name
        path = f"{folder}/{name}"
        is_image = name.lower().endswith(suffixes) and not is_junk(name)
        if not is_image and (why := _why_not(entry, place, known)) is not None:
            if not name.startswith(".") or name.lower().endswith(suffixes) or entry.is_dir():
                left_out.append(BrokenImage(_one_line(path), why))
            continue
        _check_name(name, place)
        fault, size = _look_at(entry)
        if fault is not None:
            broken.append(BrokenImage(path, fault))
        else:
            records.append(ManifestRecord(*label(name), path, size))
    return Listing(records, broken, left_out)


def is_junk(name: str) -> bool:
    """Whether a name is hidden, or of something that a system leaves in folders."""
    return name.startswith(".") or name.casefold() in JUNK


def more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _why_not(entry: os.DirEntry[str], place: Path, known: dict[str, str]) -> str | None:
    """Why a file whose name is not an image's is left out; None: it has no suffix, and is an image by its content.

    Args:
        known: reasons by suffix, of which one file is opened; files without suffix all are.

    Raises:
        UserError: a folder.
    """
    if is_junk(entry.name):
        return _why_junk(entry.name)
    if entry.is_dir():
        raise UserError(f"{entry.path}: is a folder; the images of a class lie directly in {place}")
    suffix = Path(entry.name).suffix.lower()
    if suffix and suffix in known:
        return known[suffix]
    try:
        with Path(entry.path).open("rb") as file:
            form = recognize(file.read(16))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not suffix:
        return "not an image" if form is None else None
    if form == "HEIC":
        known[suffix] = "HEIC, which needs the package pillow-heif; install it, or convert the files"
    else:
        known[suffix] = "not an image" if form is None else f"{form} under an unknown suffix; rename the files"
    return known[suffix]


def _suffix(path: str) -> str:
    """What kind of file a path names, for a reader."""
    name = path.rpartition("/")[2]
    if name.casefold() in JUNK:
        return name
    return Path(name).suffix.lower() or "without suffix"


def _why_junk(name: str) -> str:
    return "hidden" if name.startswith(".") else "made by the system"


def _one_line(path: str) -> str:
    """The path as UTF-8 without line breaks, which are escaped, as is everything that is not UTF-8."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return text.replace("\n", "\\n").replace("\r", "\\r")


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
    if _one_line(name) != name:  # all else survives our tables, as a test shows
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
