"""The figure of the ranking: top-1 of each class, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfnas.data.class_accuracy import ClassAccuracy
from tfnas.jobs.artifacts import atomic_path, shorten

NAMED = 40  # classes whose names find a place
LONGEST_NAME = 24  # characters
SIZE = (8.0, 3.6)  # inches
RC: Any = {"svg.hashsalt": "tfnas", "svg.fonttype": "none", "text.parse_math": False}  # a name may hold a dollar sign


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
