"""`tfnas compare-runs`: how parameters and metrics differ between two runs of the pipeline."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.cli._console import OutputFile, layout
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require

if TYPE_CHECKING:
    from tfnas.engines.compare import Difference

NAME = "compare-runs"
HELP = (
    "Show how parameters and metrics differ between two commits, branches, tags or DVC experiments, between two MLflow"
    " runs, or between two whole pipelines in MLflow."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "a git revision, a DVC experiment, `workspace`, an MLflow run id, or a pipeline_id (a tag of MLflow runs)"
    parser.add_argument("a", metavar="A", help=text)
    parser.add_argument("b", metavar="B", help="another of the same kind (default: workspace)", nargs="?")
    parser.add_argument("--out", type=OutputFile, metavar="FILE", help="also write the table, as .md or .csv")
    parser.add_argument("--folder", type=Path, default=Path(), help="project folder (default: the current one)")


def run(options: argparse.Namespace) -> None:
    from tfnas.engines.compare import WORKSPACE, differences, read_side

    if options.out is not None and options.out.suffix not in (".md", ".csv"):
        raise UserError(f"compare-runs: --out {options.out}: the name must end in .md or .csv")
    require("pipeline", by="tfnas compare-runs")
    names = options.a, options.b or WORKSPACE
    sides = [read_side(options.folder, name) for name in names]
    found = differences(*sides)
    header = ("", "name", *names, "change")
    rows = [header, *map(table_row, found)]
    if options.out is not None:
        _write([header, *map(csv_row, found)] if options.out.suffix == ".csv" else rows, options.out)
    print(layout(rows, left={0, 1}) if found else f"{names[0]} and {names[1]}: nothing differs")
    for name, side, other in zip(names, sides, reversed(sides), strict=True):
        alone = sorted({job.job for job in side.jobs} - {job.job for job in other.jobs})
        if alone:
            print(f"run by {name} only, not compared: {', '.join(alone)}")
        if side.missing:
            print(f"{name}: {len(side.missing)} metrics files are not in the DVC cache; `dvc fetch --all-commits`")


def table_row(difference: Difference) -> tuple[str, ...]:
    """The cells of a row, with numbers rounded."""
    change = "" if difference.change is None else f"{difference.change:+.6g}"
    return difference.what, difference.name, _short(difference.a), _short(difference.b), change


def csv_row(difference: Difference) -> tuple[str, ...]:
    """The cells of a row, with numbers in full."""
    change = "" if difference.change is None else repr(difference.change)
    return difference.what, difference.name, *(_whole(value) for value in (difference.a, difference.b)), change


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _whole(value) or "-"


def _whole(value: Any) -> str:
    return "" if value is None else str(value)


def _write(rows: Sequence[Sequence[str]], path: Path) -> None:
    from tfnas.jobs.artifacts import spreadsheet_cell, write_text

    if path.suffix == ".csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([spreadsheet_cell(cell) for cell in row] for row in rows)
        write_text(path, text.getvalue())
        return
    lines = ["| " + " | ".join(escape(cell, quote=False).replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    write_text(path, "\n".join(lines) + "\n")
