"""Accuracy of a trained network, overall and per class, on a folder of labeled images in any known layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tfnas.data import ImageDataset, eval_transform, load_transfer_set, manifest_samples, read_manifest
from tfnas.data.images.loader import Batch
from tfnas.data.images.transforms import Transform
from tfnas.data.sources.cifar_files import FORMATS
from tfnas.data.sources.image_folder import announce_left_out, class_names, scan_class_folders
from tfnas.jobs.artifacts import spreadsheet_cell, write_csv
from tfnas.jobs.errors import UserError
from tfnas.train.loop import evaluate_sums
from tfnas.train.metrics import Metrics, MetricSums

LAYOUTS = "manifest.csv and images/ of prepare_data, a CIFAR set, val/<class>/*, or <class>/*"


def evaluate_by_class(
    network: nn.Module, batches: Iterable[Batch], classes: Sequence[str], *, device: torch.device, precision: str
) -> tuple[Metrics, list[ClassRow]]:
    """The same numbers as `tfnas.train.loop.evaluate`, bit for bit, and those of each class."""
    confusion = Confusion(len(classes), device)
    evaluate_sums(network.to(device), batches, confusion, precision=precision)
    return confusion.result(), confusion.rows(classes)


@dataclass(frozen=True)
class ClassRow:
    """One row of the table by class."""

    name: str
    images: int
    top1_percent: float | None  # None without images
    most_taken_for: str  # the wrong class that most of its images are taken for; empty when none is


class Confusion(MetricSums):
    """The sums, and how many images of each class are taken for which."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        super().__init__(device)
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)  # [label, prediction]

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        super().add(logits, labels, loss)
        predicted = logits.detach().float().topk(1, dim=1).indices[:, 0]
        pairs = labels * len(self.counts) + predicted
        self.counts += torch.bincount(pairs, minlength=self.counts.numel()).view_as(self.counts)

    def rows(self, classes: Sequence[str]) -> list[ClassRow]:
        """One row per class, in the order of the labels."""
        counts = self.counts.cpu()
        return [_row(counts[label], label, classes) for label in range(len(classes))]


def _row(counts: Tensor, label: int, classes: Sequence[str]) -> ClassRow:
    images, correct = int(counts.sum()), int(counts[label])
    wrong = counts.clone()
    wrong[label] = 0
    taken_for = classes[int(wrong.argmax())] if wrong.any() else ""
    return ClassRow(classes[label], images, 100.0 * correct / images if images else None, taken_for)


def write_rows(rows: Sequence[ClassRow], path: Path) -> None:
    """One row per class, as CSV for a spreadsheet."""
    cells = (
        {name: spreadsheet_cell(cell) if isinstance(cell, str) else cell for name, cell in asdict(row).items()}
        for row in rows
    )
    write_csv(path, [column.name for column in fields(ClassRow)], cells)


def read_image_set(
    folder: Path, resolution: int, *, images: Path | None = None, exif: str | None = None, split: str = "val"
) -> tuple[Dataset[Any], list[str]]:
    """The images of a split, without augmentation, as ((3, R, R) image, label) items, and the names of the classes.

    Args:
        folder: in one of `LAYOUTS`; the first match counts.
        images: where the paths of a manifest are, when not in images/ next to it.
        exif: apply or ignore EXIF turns; None: as prepare_data was told, and apply them in other folders.
        split: val or train; for the latter, a folder of class folders must have train/.

    Raises:
        UserError: the folder has none of the layouts, or its files are damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one with {LAYOUTS}")
    transform = eval_transform(resolution)
    if (folder / "manifest.csv").is_file():
        samples, classes = manifest_samples(read_manifest(folder / "manifest.csv"), split)
        return ImageDataset(images or folder / "images", samples, transform, exif=exif), classes
    sets = [name for name, form in FORMATS.items() if (folder / form.folder).is_dir()]
    if len(sets) > 1:
        raise UserError(f"{folder}: holds {' and '.join(sets)}; name a folder with one of them")
    if sets:
        found = load_transfer_set(sets[0], folder, split == "train", transform)
        return found, found.classes
    if split == "train" and not (folder / "train").is_dir():
        raise UserError(f"{folder}: has no training images; name a folder with train/<class>/* and val/<class>/*")
    return _class_folders(folder / split if (folder / split).is_dir() else folder, transform, exif)


def _class_folders(root: Path, transform: Transform, exif: str | None) -> tuple[Dataset[Any], list[str]]:
    listing = scan_class_folders(root, [("val", label, name) for label, name in class_names(root, root).items()])
    announce_left_out(root, listing.left_out)
    if listing.broken:
        first = listing.broken[0]
        raise UserError(f"{root / first.path}: is no image ({first.reason}); replace or remove it")
    samples, classes = manifest_samples(listing.records, "val")
    return ImageDataset(root, samples, transform, exif=exif), classes
