"""The manifest: every image of a data set, its split, its class and its size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from sys import intern
from typing import NamedTuple

from tfnas.data.tables import image_path, read_table, whole_number, write_table
from tfnas.runtime.errors import UserError

SPLITS = ("train", "val")
COLUMNS = ("split", "class", "path", "bytes")
CLASS_COLUMNS = ("label", "class")
SAMPLE_COLUMNS = ("path", "class", "label")
BROKEN_COLUMNS = ("path", "reason")
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
