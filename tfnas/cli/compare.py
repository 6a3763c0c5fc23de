"""`tfnas compare`: the latency of the paper's networks and torchvision's on this device."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tfnas.cli._console import OutputFolder, check_numbers, layout
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require

if TYPE_CHECKING:
    from tfnas.latency import LatencyTable
    from tfnas.latency.baselines import Compared

HELP = (
    "Measure the paper's twelve networks and ten of torchvision's on this device, side by side: the paper's Table 2 for"
    " your device. It takes minutes; run nothing else meanwhile."
)
EPILOG = (
    "Backend, precision, threads, batch size and resolution default to those of --table; without a table, to"
    " torch-eager, float32, 1, 1 and 224."
)
DEFAULTS = {"backend": "torch-eager", "precision": "float32", "threads": 1, "batch_size": 1, "resolution": 224}
COLUMNS = (
    "network",
    "latency, ms",
    "by the table",
    "error",
    "multiply-adds",
    "parameters",
    "top-1*",
    "source of top-1",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        metavar="FILE_OR_NAME",
        help="latency table, or a name of `tfnas table list`; also show what it predicts for the networks of its space",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--backend", metavar="NAME", help="torch-eager, onnx-runtime, openvino, ... as in `tfnas profile`"
    )
    parser.add_argument("--precision", help="float32, bfloat16, float16 or int8, as in `tfnas profile`")
    parser.add_argument(
        "--channels-last", action="store_true", default=None, help="use the channels-last memory layout"
    )
    parser.add_argument("--threads", type=int, metavar="T", help="CPU threads")
    parser.add_argument("--batch-size", type=int, metavar="B", help="images per run")
    parser.add_argument("--resolution", type=int, metavar="N", help="height and width of the images")
    parser.add_argument("--repeats", type=int, default=50, metavar="R", help="timed runs per network (default: 50)")
    parser.add_argument("--warmup-runs", type=int, default=2, metavar="W", help="warm-up runs per round (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="random seed for the measurement order (default: 0)")
    parser.add_argument(
        "--out", type=OutputFolder, required=True, metavar="DIR", help="folder for comparison.csv, .svg and .png"
    )
    parser.epilog = EPILOG


def run(options: argparse.Namespace) -> None:
    from tfnas.tables.shipped import open_table

    table = open_table(options.table) if options.table else None
    complete(options, table)
    _check(options)
    require("report", by="tfnas compare")
    from tfnas.latency.baselines import write_comparison
    from tfnas.report.figures.latency import draw_comparison

    rows, here = measure(options, table)
    write_comparison(rows, options.out / "comparison.csv")
    title = heading(here, options)
    for suffix in ("svg", "png"):
        draw_comparison(rows, title, options.out / f"comparison.{suffix}")
    print(summary(rows, title, table, options, same_device=table is not None and table.device == here))


def measure(options: argparse.Namespace, table: LatencyTable | None) -> tuple[Sequence[Compared], str]:
    """Every network's latency, and the name of the device."""
    from tfnas.compute.devices import find_device
    from tfnas.latency.backends import BackendOptions, device_of, open_backend, stopwatch_of
    from tfnas.latency.baselines import Conditions, compare, paper_baselines, torchvision_baselines
    from tfnas.latency.timing import Timer

    device = find_device(options.device, source="tfnas compare: --device")
    asked = BackendOptions(options.device, options.threads, options.precision, bool(options.channels_last))
    backend = open_backend(options.backend, asked, source="tfnas compare: --backend")
    rows = compare(
        [*paper_baselines(options.resolution), *torchvision_baselines(options.resolution)],
        backend,
        Timer(device, options.warmup_runs, stopwatch_of(backend)),
        Conditions(options.threads, options.batch_size, options.resolution, options.repeats, options.seed),
        table,
    )
    return rows, device_of(backend, options.device)


def complete(options: argparse.Namespace, table: LatencyTable | None) -> None:
    """Fill in options that were not given, from the table or the defaults.

    Raises:
        UserError: an option contradicts the table.
    """
    made = {}
    if table is not None:
        made = {**table.details, "batch_size": table.batch_size, "resolution": table.resolution}
    for name, default in {**DEFAULTS, "channels_last": False}.items():
        given = getattr(options, name)
        if given is None:
            setattr(options, name, made.get(name, default))
        elif name in made and made[name] != given:
            option = name.replace("_", "-")
            raise UserError(
                f"tfnas compare: --{option} {given}: {options.table} was measured with {made[name]};"
                f" leave --{option} or --table out"
            )


def _check(options: argparse.Namespace) -> None:
    if options.precision not in ("float32", "bfloat16", "float16", "int8"):
        raise UserError(f"tfnas compare: --precision {options.precision}: write float32, bfloat16, float16 or int8")
    lowest = {"threads": 1, "batch_size": 1, "resolution": 32, "repeats": 1, "warmup_runs": 0, "seed": 0}
    check_numbers(options, "tfnas compare", lowest)


def heading(here: str, options: argparse.Namespace) -> str:
    """The device and how the networks ran on it."""
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    size = f"{options.resolution}x{options.resolution}"
    return f"{here}, {options.backend}, {options.precision}, {threads}, batch {options.batch_size}, {size}"


def summary(
    rows: Sequence[Compared], title: str, table: LatencyTable | None, options: argparse.Namespace, *, same_device: bool
) -> str:
    """The printed table of networks, notes on its numbers, and where they were written."""
    lines = [title, "", layout([COLUMNS, *table_rows(rows, same_device)], left={0, 7}), ""]
    lines.append("* As published by the source, on ImageNet at 224x224; not measured here.")
    if table is not None and not same_device:
        lines.append(f"The table was measured on another device ({table.device}): its error is not shown.")
    if same_device:
        lines.append(told_hits(rows))
    lines.append(f"{options.out}: comparison.csv, comparison.svg, comparison.png")
    return "\n".join(lines)


def told_hits(rows: Sequence[Compared]) -> str:
    """How many of the paper's networks the table predicts within 5 % and 10 %."""
    from tfnas.latency.validation import Validated, hit_rates_text, validation_metrics

    known = [row for row in rows if row.table_ms is not None]
    judged = [Validated(row.baseline.name, row.table_ms, row.timing.median_ms) for row in known]
    metrics = validation_metrics(judged)
    if not metrics:
        return "The table has the operations of none of these networks."
    return f"Of {len(judged)} networks that the table has the operations of, {hit_rates_text(metrics, 'published_')}."


def table_rows(rows: Sequence[Compared], same_device: bool) -> Iterator[tuple[str, ...]]:
    """The cells of each row, as in `COLUMNS`."""
    for row in rows:
        baseline, ms = row.baseline, row.timing.median_ms
        by_table = "-" if row.table_ms is None else f"{row.table_ms:.3f}"
        error = "-" if row.table_ms is None or not same_device else f"{100 * (row.table_ms / ms - 1):+.1f} %"
        sizes = (f"{baseline.macs / 1e6:.1f} M", f"{baseline.params / 1e6:.2f} M")
        yield baseline.name, f"{ms:.3f}", by_table, error, *sizes, f"{baseline.top1:.1f} %", baseline.source
