"""How many training images of each class a network gets right (Appendix B): class_accuracy.csv, and its figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfnas.data.manifest import read_table, whole_number, write_table
from tfnas.jobs.artifacts import atomic_path, shorten
from tfnas.jobs.errors import UserError

COLUMNS = ("class", "images", "correct", "top1")  # top1 in percent
NAMED = 40  # classes whose names find a place in the figure
LONGEST_NAME = 24  # characters
SIZE = (8.0, 3.6)  # inches
RC: Any = {"svg.hashsalt": "tfnas", "svg.fonttype": "none", "text.parse_math": False}  # a name may hold a dollar sign


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


def draw_class_accuracy(rows: Sequence[ClassAccuracy], path: str | Path) -> None:
    """Write an SVG file, the same bytes for the same rows.

    Args:
        rows: best class first.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        width = 0.9 if len(rows) <= NAMED else 1.0
        axes.bar(range(len(rows)), [row.top1 for row in rows], width=width, color="#2b6cb0")
        if len(rows) <= NAMED:
            axes.set_xticks(
                range(len(rows)), [shorten(row.class_name, LONGEST_NAME) for row in rows], rotation=60, ha="right"
            )
        axes.set(xlim=(-0.5, len(rows) - 0.5), ylim=(0, 100), ylabel="top-1, %")
        axes.set_xlabel(f"{len(rows)} classes, best first")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
