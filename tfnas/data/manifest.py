"""The manifest: every image of a data set, its split, its class and its size."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from sys import intern
from typing import NamedTuple

from tfnas.data.tables import image_path, read_table, whole_number, write_table
from tfnas.runtime.artifacts import digest_text, read_json
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import Params

SPLITS = ("train", "val")
COLUMNS = ("split", "class", "path", "bytes")
CLASS_COLUMNS = ("label", "class")
SAMPLE_COLUMNS = ("path", "class", "label")
BROKEN_COLUMNS = ("path", "reason")
FOLDERS = "folders.csv"
FOLDER_COLUMNS = ("folder", "entries", "contents", "modified_ns")  # contents: a digest of names and sizes
STAGE = "prepare_data"

Sample = tuple[str, int]  # path relative to the folder of the images, label


class ManifestRecord(NamedTuple):
    """One image. A tuple, because ImageNet has 1.3 million of them."""

    split: str  # train | val
    class_name: str
    path: str  # relative to the folder of the images, with slashes
    bytes: int


class BrokenImage(NamedTuple):
    """A file that should be an image and cannot be read."""

    path: str  # as in the manifest
    reason: str


class Listing(NamedTuple):
    """What a look at a data set finds."""

    records: list[ManifestRecord]
    broken: list[BrokenImage]
    left_out: Sequence[BrokenImage] = ()  # files that are no images of the data set, and why


def write_folders(root: Path | None, paths: Iterable[str], file: str | Path) -> None:
    """folders.csv: every folder that holds images and those above it, as they are now; none where `root` is None.

    A manifest of a million images takes seconds to compare with the disk, the times of a thousand folders some
    milliseconds: a file that comes, goes or gets another name changes the time of its folder.

    Args:
        paths: of the images, relative to the root.
    """
    places = {parent for path in {path.rpartition("/")[0] for path in paths} for parent in (path, *_above(path))}
    seen = {place: _look_at(root / place) for place in sorted(places)} if root is not None else {}
    write_table(file, FOLDER_COLUMNS, [(place, *look) for place, look in seen.items() if look is not None])


def changed_folders(file: str | Path, root: Path) -> list[str]:
    """Folders of folders.csv that hold other names or sizes than when the images were listed.

    Only where a folder's time is another one it is looked into: a file that is written over in place is not noticed.
    """
    changed = []
    for _, (place, _, contents, modified) in read_table(file, FOLDER_COLUMNS, stage=STAGE):
        folder = root / place
        if folder.exists() and str(folder.stat().st_mtime_ns) == modified:
            continue
        look = _look_at(folder)
        if look is None or look[1] != contents:
            changed.append(place or ".")
    return changed


def describe_changed_images(root: str | None, file: Path) -> str | None:
    """One line where images have come, gone or changed since they were listed; None where they have not.

    Args:
        root: `prepare_data.root`.
        file: folders.csv.
    """
    source = file.parent / "images" / "source.json"
    if root is None or not file.is_file() or not source.is_file() or read_json(source).get("root") != root:
        return None  # not listed, or another folder was
    if not (changed := changed_folders(file, Path(root))):
        return None
    others = f" and {len(changed) - 1} more folders" if len(changed) > 1 else ""
    return (
        f"{Path(root) / changed[0]}{others} changed since prepare_data listed the images; list them again with"
        " `snakemake --cores all -R prepare_data` or `dvc repro -f prepare_data`"
    )


def warn_of_changed_images(params: Params, manifest: Path) -> None:
    """Say in a job that reads listed images where they have changed since: it goes on, with those that are listed."""
    if (line := describe_changed_images(params.prepare_data.root, manifest.with_name(FOLDERS))) is not None:
        print(f"warning: {line}", file=sys.stderr)


def _above(path: str) -> Iterable[str]:
    return ("" if str(parent) == "." else str(parent) for parent in PurePosixPath(path).parents)


def _look_at(folder: Path) -> tuple[int, str, int] | None:
    """Entries, digest of their names and sizes, and the time of a folder or a file; None where there is none."""
    try:
        found = folder.stat()
        if not folder.is_dir():
            return 1, str(found.st_size), found.st_mtime_ns
        with os.scandir(folder) as entries:
            rows = sorted(f"{entry.name} {entry.stat().st_size if entry.is_file() else '/'}" for entry in entries)
    except OSError:
        return None
    return len(rows), digest_text(os.fsencode("\n".join(rows)).hex())[:16], found.st_mtime_ns


def write_broken(broken: Iterable[BrokenImage], path: str | Path) -> None:
    """broken.csv: path, reason."""
    write_table(path, BROKEN_COLUMNS, broken)


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
    """The classes in sorted order: a class's label is its place in this list, as everywhere in the field."""
    return sorted({record.class_name for record in records})


def manifest_samples(records: Iterable[ManifestRecord], split: str) -> tuple[list[Sample], list[str]]:
    """The images of a split with their labels, and the split's classes in the order of labels."""
    chosen = [record for record in records if record.split == split]
    classes = manifest_classes(chosen)
    labels = {name: label for label, name in enumerate(classes)}
    return [(record.path, labels[record.class_name]) for record in chosen], classes


def write_classes(classes: Iterable[str], path: str | Path) -> None:
    """classes.csv: label, class."""
    write_table(path, CLASS_COLUMNS, enumerate(classes))


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
