"""The manifest (every image of a data set, with split, class and size) and the other CSV files of this room.

Files and folders are written atomically, and read with errors that name file and line.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from sys import intern
from typing import TYPE_CHECKING, NamedTuple

from tfnas.compute.seeding import derive_seed
from tfnas.jobs.artifacts import atomic_path, digest_text, flush_to_disk, read_json, write_text
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from tfnas.stages.params import Params

SPLITS = ("train", "val")
COLUMNS = ("split", "class", "path", "bytes")
CLASS_COLUMNS = ("label", "class")
SAMPLE_COLUMNS = ("path", "class", "label")
BROKEN_COLUMNS = ("path", "reason")
FOLDERS = "folders.csv"
FOLDER_COLUMNS = ("folder", "entries", "contents", "modified_ns")  # contents: a digest of names and sizes
STAGE = "prepare_data"
Sample = tuple[str, int]  # path relative to the folder of the images, label
NOTE = "README.txt"


class ManifestRecord(NamedTuple):
    """One image; a tuple, because ImageNet has 1.3 million of them."""

    split: str  # train | val
    class_name: str
    path: str  # relative to the folder of the images, with slashes
    bytes: int


class BrokenImage(NamedTuple):
    """A file that should be an image and cannot be read."""

    path: str  # as in the manifest
    reason: str


class Listing(NamedTuple):
    """What a scan of a data set finds."""

    records: list[ManifestRecord]
    broken: list[BrokenImage]
    left_out: Sequence[BrokenImage] = ()  # files that are not images of the data set, with reasons


def write_manifest(records: Iterable[ManifestRecord], path: str | Path) -> None:
    write_table(path, COLUMNS, records)


def read_manifest(path: str | Path) -> list[ManifestRecord]:
    """The records of manifest.csv, in its order.

    Raises:
        UserError: missing, damaged, an unknown split, or a path that leaves the folder; names the line.
    """
    records = []
    for line, (split, class_name, image, size) in read_table(path, COLUMNS, stage=STAGE):
        where = f"{path}: line {line}"
        if split not in SPLITS:
            raise UserError(f"{where}: split {split!r} is neither train nor val; run {STAGE} again")
        if not class_name:
            raise UserError(f"{where}: class is empty; run {STAGE} again")
        records.append(
            ManifestRecord(intern(split), intern(class_name), image_path(image, where), whole_number(size, where))
        )
    return records


def manifest_classes(records: Iterable[ManifestRecord]) -> list[str]:
    """The classes in sorted order; a class's label is its index, as usual."""
    return sorted({record.class_name for record in records})


def manifest_samples(records: Iterable[ManifestRecord], split: str) -> tuple[list[Sample], list[str]]:
    """The images of a split with their labels, and the split's classes in the order of labels."""
    chosen = [record for record in records if record.split == split]
    classes = manifest_classes(chosen)
    labels = {name: label for label, name in enumerate(classes)}
    return [(record.path, labels[record.class_name]) for record in chosen], classes


def limit_training(records: Sequence[ManifestRecord], images_per_class: int | None) -> list[ManifestRecord]:
    """The records with at most so many training images of each class, in their order; all with None.

    Which ones follows from their paths alone, and a larger number only adds images. Validation images all stay.
    """
    if images_per_class is None:
        return list(records)
    classes: dict[str, list[str]] = {}
    for record in records:
        if record.split == "train":
            classes.setdefault(record.class_name, []).append(record.path)
    kept: set[str] = set()
    for paths in classes.values():
        shuffled = sorted(paths, key=lambda path: (derive_seed(0, "images_per_class", path), path))
        kept.update(shuffled[:images_per_class])
    return [record for record in records if record.split != "train" or record.path in kept]


def write_classes(classes: Iterable[str], path: str | Path) -> None:
    """classes.csv: label, class."""
    write_table(path, CLASS_COLUMNS, enumerate(classes))


def write_broken(broken: Iterable[BrokenImage], path: str | Path) -> None:
    """broken.csv: path, reason."""
    write_table(path, BROKEN_COLUMNS, broken)


def write_samples(samples: Iterable[tuple[str, str, int]], path: str | Path) -> None:
    """train.csv or val.csv of a subset: path, class, label."""
    write_table(path, SAMPLE_COLUMNS, samples)


def read_samples(path: str | Path) -> list[Sample]:
    """(path, label) of each row of a subset's train.csv or val.csv, in order.

    Raises:
        UserError: missing, damaged, or a path that leaves the folder; names the line.
    """
    samples = []
    for line, (image, _, label) in read_table(path, SAMPLE_COLUMNS, stage="build_subset"):
        where = f"{path}: line {line}"
        samples.append((image_path(image, where), whole_number(label, where)))
    return samples


def write_folders(root: Path | None, paths: Iterable[str], file: str | Path) -> None:
    """folders.csv: the present state of every folder that holds images and of those above it; empty without a root.

    Comparing a manifest of a million images with the disk takes seconds, checking the timestamps of a thousand folders
    milliseconds: adding, removing or renaming a file changes the timestamp of its folder.

    Args:
        paths: of the images, relative to the root.
    """
    places = {parent for path in {path.rpartition("/")[0] for path in paths} for parent in (path, *_above(path))}
    seen = {place: _state_of(root / place) for place in sorted(places)} if root is not None else {}
    write_table(file, FOLDER_COLUMNS, [(place, *look) for place, look in seen.items() if look is not None])


def changed_folders(file: str | Path, root: Path) -> list[str]:
    """Folders whose names or sizes have changed since the images were listed.

    A folder is only opened where its timestamp has changed, so a file overwritten in place goes unnoticed.
    """
    changed = []
    for _, (place, _, contents, modified) in read_table(file, FOLDER_COLUMNS, stage=STAGE):
        folder = root / place
        if folder.exists() and str(folder.stat().st_mtime_ns) == modified:
            continue
        look = _state_of(folder)
        if look is None or look[1] != contents:
            changed.append(place or ".")
    return changed


def describe_changed_images(root: str | None, file: Path) -> str | None:
    """One line where images were added, removed or changed since they were listed; None where they were not.

    Args:
        root: `prepare_data.folder`.
        file: folders.csv.
    """
    source = file.parent / "images" / "source.json"
    if root is None or not file.is_file() or not source.is_file() or read_json(source).get("root") != root:
        return None  # not listed, or listed from another folder
    if not (changed := changed_folders(file, Path(root))):
        return None
    others = f" and {len(changed) - 1} more folders" if len(changed) > 1 else ""
    return (
        f"{Path(root) / changed[0]}{others} changed since prepare_data listed the images; list them again with"
        " `snakemake --cores all -R prepare_data` or `dvc repro -f prepare_data`"
    )


def warn_of_changed_images(params: Params, manifest: Path) -> None:
    """Warn in a job that reads listed images where they have changed since; it continues with the listed ones."""
    if (line := describe_changed_images(params.prepare_data.folder, manifest.with_name(FOLDERS))) is not None:
        print(f"warning: {line}", file=sys.stderr)


def _above(path: str) -> Iterable[str]:
    return ("" if str(parent) == "." else str(parent) for parent in PurePosixPath(path).parents)


def _state_of(folder: Path) -> tuple[int, str, int] | None:
    """Number of entries, digest of their names and sizes, and timestamp of a folder or file; None where missing."""
    try:
        found = folder.stat()
        if not folder.is_dir():
            return 1, str(found.st_size), found.st_mtime_ns
        with os.scandir(folder) as entries:
            rows = sorted(f"{entry.name} {entry.stat().st_size if entry.is_file() else '/'}" for entry in entries)
    except OSError:
        return None
    return len(rows), digest_text(os.fsencode("\n".join(rows)).hex())[:16], found.st_mtime_ns


def write_table(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_table(path: str | Path, columns: Sequence[str], *, stage: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each row below the header.

    Args:
        columns: what the header must be.
        stage: the stage that writes such a file.

    Raises:
        UserError: missing, no text, another header, or a row with more or fewer cells.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if next(reader, None) != list(columns):
                raise UserError(f"{path}: line 1 is not {','.join(columns)}; pass the file that {stage} wrote")
            for cells in reader:
                if len(cells) != len(columns):
                    raise UserError(
                        f"{path}: line {reader.line_num} has {len(cells)} cells, expected {len(columns)}"
                        f" ({','.join(columns)}); run {stage} again"
                    )
                yield reader.line_num, cells
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run {stage}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a CSV file ({error}); run {stage} again") from None


def whole_number(cell: str, where: str) -> int:
    """The number from 0 in a cell.

    Raises:
        UserError: anything else; `where` names file, line and column.
    """
    if not (cell.isascii() and cell.isdigit()):
        raise UserError(f"{where}: {cell!r} is not a whole number from 0")
    return int(cell)


def image_path(cell: str, where: str) -> str:
    """The path of an image, relative to the folder of the images.

    Raises:
        UserError: empty, absolute, or leading out of that folder.
    """
    if not cell or cell[0] == "/" or (".." in cell and ".." in cell.split("/")):
        raise UserError(f"{where}: path {cell!r} is not within the folder of the images")
    return cell


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder next to `path`: it replaces `path` when the block succeeds, and is removed when it fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.sync()  # like atomic_path, but for all files at once
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
        flush_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_note(path: str | Path, text: str) -> None:
    """A folder that holds only a note, where the engines expect an output."""
    with atomic_folder(path) as folder:
        write_text(folder / NOTE, text + "\n")
