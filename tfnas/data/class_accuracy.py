"""class_accuracy.csv: how many training images of each class a network gets right (Appendix B)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tfnas.data.manifest import read_table, whole_number, write_table
from tfnas.jobs.errors import UserError

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


def rank(rows: Iterable[ClassAccuracy]) -> list[ClassAccuracy]:
    """Best class first; classes of the same accuracy by name."""
    return sorted(rows, key=lambda row: (-row.top1, row.class_name))


def write_class_accuracy(rows: Sequence[ClassAccuracy], path: str | Path) -> None:
    write_table(path, COLUMNS, ((*row, row.top1) for row in rows))


def read_class_accuracy(path: str | Path) -> list[ClassAccuracy]:
    """The rows of class_accuracy.csv, ranked again.

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
