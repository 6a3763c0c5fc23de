"""Top-1 accuracy of each class, and class_accuracy.csv."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tfnas.compute.devices import autocast
from tfnas.data.tables import read_table, whole_number, write_table
from tfnas.runtime.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

COLUMNS = ("class", "images", "correct", "top1")  # top1 in percent


class ClassAccuracy(NamedTuple):
    """One class: its training images, and how many of them the network gets right."""

    class_name: str
    images: int
    correct: int

    @property
    def top1(self) -> float:
        """Percent."""
        return 100.0 * self.correct / self.images


def count_correct(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    device: torch.device,
    precision: str,
) -> tuple[list[int], list[int]]:
    """Images of each class, and those whose largest logit is their label's.

    Args:
        batches: (N, 3, H, W) images, (N,) labels; how they are cut into batches changes no result but for
            rounding in the last bit.
    """
    import torch

    network.eval()
    images = torch.zeros(num_classes, dtype=torch.int64, device=device)
    correct = torch.zeros_like(images)
    for pictures, labels in batches:
        labels = labels.to(device, non_blocking=True)
        with torch.no_grad(), autocast(device, precision):
            logits = network(pictures.to(device, non_blocking=True))  # (N, K)
        images += labels.bincount(minlength=num_classes)
        correct += labels[logits.argmax(1) == labels].bincount(minlength=num_classes)
    return images.tolist(), correct.tolist()


def rank(rows: Iterable[ClassAccuracy]) -> list[ClassAccuracy]:
    """Best class first; classes of the same accuracy by name."""
    return sorted(rows, key=lambda row: (-row.top1, row.class_name))


def write_class_accuracy(rows: Sequence[ClassAccuracy], path: str | Path) -> None:
    write_table(path, COLUMNS, ((*row, row.top1) for row in rows))


def read_class_accuracy(path: str | Path) -> list[ClassAccuracy]:
    """The rows of class_accuracy.csv, ranked anew.

    Raises:
        UserError: missing, damaged, a class twice, or more correct than images; names the line.
    """
    rows: dict[str, ClassAccuracy] = {}
    for line, (name, images, correct, _) in read_table(path, COLUMNS, stage="rank_classes"):
        where = f"{path}: line {line}"
        row = ClassAccuracy(name, whole_number(images, where), whole_number(correct, where))
        if row.images == 0 or row.correct > row.images:
            raise UserError(
                f"{where}: class {name!r} has {row.correct} correct of {row.images}; run rank_classes again"
            )
        if name in rows:
            raise UserError(f"{where}: class {name!r} is there twice; run rank_classes again")
        rows[name] = row
    return rank(rows.values())
