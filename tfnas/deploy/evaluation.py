"""Accuracy of a trained network, in all and for each class."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from tfnas.runtime.artifacts import atomic_path, spreadsheet_cell
from tfnas.train.loop import evaluate_sums
from tfnas.train.metrics import Metrics, MetricSums
from tfnas.train.stepper import Batch


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
        """One row a class, in the order of the labels."""
        counts = self.counts.cpu()
        return [_row(counts[label], label, classes) for label in range(len(classes))]


def evaluate_by_class(
    network: nn.Module, batches: Iterable[Batch], classes: Sequence[str], *, device: torch.device, precision: str
) -> tuple[Metrics, list[ClassRow]]:
    """The numbers of `tfnas.train.loop.evaluate`, bit for bit, and those of each class."""
    confusion = Confusion(len(classes), device)
    evaluate_sums(network.to(device), batches, confusion, precision=precision)
    return confusion.result(), confusion.rows(classes)


def write_rows(rows: Sequence[ClassRow], path: Path) -> None:
    """One row a class, as CSV for a spreadsheet."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(ClassRow)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = asdict(row).items()
            writer.writerow({name: spreadsheet_cell(cell) if isinstance(cell, str) else cell for name, cell in cells})


def _row(counts: Tensor, label: int, classes: Sequence[str]) -> ClassRow:
    images, correct = int(counts.sum()), int(counts[label])
    wrong = counts.clone()
    wrong[label] = 0
    taken_for = classes[int(wrong.argmax())] if wrong.any() else ""
    return ClassRow(classes[label], images, 100.0 * correct / images if images else None, taken_for)
