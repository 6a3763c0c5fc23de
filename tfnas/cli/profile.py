"""`tfnas profile`: measure the latency table of a search space on this device."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.cli._console import OutputFile, check_numbers
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from tfnas.latency import LatencyTable
    from tfnas.latency.params import ProfileLatencyParams
    from tfnas.latency.validation import Validated
    from tfnas.space import Space

HELP = (
    "Measure how long every operation of a search space takes on this device, write a latency table, and check it on"
    " whole networks. It takes minutes; run nothing else meanwhile."
)

DEFAULTS = {"minutes": 4.0, "batch_size": 1, "num_classes": 1000}
ADAPTING_MINUTES = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--space",
        metavar="NAME_OR_FILE",
        help="tf-nas, tf-nas-wose, tf-nas-small-images, tf-nas-tiny, mobilenet-v2, or a .yaml file (default with"
        " --from: the table's)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE_OR_NAME",
        help="adapt this table, of another device or a name of `tfnas table list`, by a few measured samples instead of"
        " measuring every operation",
    )
    parser.add_argument("--out", type=OutputFile, required=True, metavar="FILE", help="table to write, e.g. table.json")
    parser.add_argument(
        "--resolution", type=int, metavar="N", help="height and width of the images (default: the space's)"
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="C",
        help="classes of the classifier (default: 1000; with --from, the table's)",
    )
    _add_device_arguments(parser)
    _add_measuring_arguments(parser)
    _add_validation_arguments(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed for measurement order and validation networks (default: 0)"
    )


def _add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments for how precisely to measure."""
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="time budget; more minutes, more precision (default: 4; with --from 0.5)",
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.01, metavar="T", help="relative error at which to stop (default: 0.01)"
    )
    parser.add_argument("--repeats", type=int, default=8, metavar="R", help="timed runs in a row (default: 8)")
    parser.add_argument("--warmup-runs", type=int, default=2, metavar="W", help="warm-up runs before them (default: 2)")
    parser.add_argument(
        "--on-busy",
        choices=("warn", "refuse"),
        default="refuse",
        help="what to do when other programs load the machine (default: refuse)",
    )


def _add_validation_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments for checking and correcting the table."""
    parser.add_argument(
        "--validation-networks",
        type=int,
        default=32,
        metavar="V",
        help="random whole networks to check the table on (default: 32)",
    )
    parser.add_argument(
        "--calibrated",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="correct the table by those networks if that helps (default), or only report the correction",
    )


def _add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments for the device, and how it runs a network."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--backend",
        default="torch-eager",
        metavar="NAME",
        help="runtime of the networks: torch-eager, torch-compile, onnx-runtime, openvino, executorch, litert, ncnn, or"
        " one that you installed (default: torch-eager)",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        help="float32; bfloat16 or float16 under autocast; or int8, quantized, with onnx-runtime and openvino"
        " (default: float32)",
    )
    parser.add_argument("--channels-last", action="store_true", help="use the channels-last memory layout")
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help="images per run (default: 1; with --from, the table's; the paper uses 32 on a GPU)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="T", help="CPU threads (default: 1)")


def run(options: argparse.Namespace) -> None:
    source = read_source(options)
    params = read_options(options)
    from tfnas.compute.devices import find_device
    from tfnas.latency.backends import BackendOptions, open_backend
    from tfnas.latency.measuring import Measuring
    from tfnas.space import load_space
    from tfnas.stages.profile_latency import adapt, profile

    space = load_space(options.space)
    find_device(params.device, source="tfnas profile: --device")
    backend = open_backend(params.backend, BackendOptions.of(params), source="tfnas profile: --backend")
    if source is not None:
        check_source(source, space, f"tfnas profile: --from {options.source}")
    measuring = Measuring(
        params,
        space=space.digest if source is None else f"{space.digest} from {_identity(source)}",
        resolution=options.resolution or space.resolution,
        backend=backend,
        journal=options.out.with_name(f"{options.out.name}.partial"),
    )
    if source is None:
        table, rows = profile(space, measuring, seed=options.seed)
    else:
        table, rows = adapt(source, space, measuring, seed=options.seed)
    table.save(options.out)
    measuring.discard()
    print(summary(table, space, rows, options.out))


def _identity(source: LatencyTable) -> str:
    """What tells a source from another: the samples' networks are chosen by it."""
    return f"{source.device} {source.base_ms} {source.details.get('measured_at')}"


def read_source(options: argparse.Namespace) -> LatencyTable | None:
    """The table to adapt, if any; fills in the options that were not given, from it or the defaults.

    Raises:
        UserError: no such table, or an option contradicts it.
    """
    made = DEFAULTS
    source = None
    if options.source is not None:
        from tfnas.tables.shipped import open_table

        source = open_table(options.source)
        classes = source.details.get("num_classes", DEFAULTS["num_classes"])
        made = {"minutes": ADAPTING_MINUTES, "batch_size": source.batch_size, "num_classes": classes}
        options.resolution = _agreeing(options, "resolution", source.resolution)
        options.space = options.space or source.space
    if options.space is None:
        raise UserError("tfnas profile: name a space, --space tf-nas, or a table to adapt, --from FILE")
    for name, value in made.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return source


def check_source(source: LatencyTable, space: Space, name: str) -> None:
    """Raise UserError unless a table was made for the space."""
    if source.space != space.name:
        raise UserError(f"{name}: is of space {source.space}, not of {space.name}; leave --space out")
    source.check_fits(space, source.resolution, source=name)


def _agreeing(options: argparse.Namespace, name: str, made: int) -> int:
    given = getattr(options, name)
    if given not in (None, made):
        raise UserError(f"tfnas profile: --{name} {given}: {options.source} was measured at {made}; leave it out")
    return made


def read_options(options: argparse.Namespace) -> ProfileLatencyParams:
    """The options as parameters.

    Raises:
        UserError: a value out of range.
    """
    from pydantic import ValidationError

    from tfnas.latency.params import ProfileLatencyParams

    check_numbers(options, "tfnas profile", {"resolution": 8, "seed": 0})
    given = ("device", "backend", "precision", "channels_last", "threads", "batch_size", "num_classes", "minutes")
    given += ("tolerance", "repeats", "warmup_runs", "validation_networks", "calibrated", "on_busy")
    values = {name: getattr(options, name) for name in given} | {"table": None}
    try:
        return ProfileLatencyParams.model_validate(values)
    except ValidationError as error:
        detail = error.errors()[0]
        if detail["loc"] == ("device",):
            raise UserError(f"tfnas profile: --device {detail['input']}: write cpu, cuda or cuda:N") from None
        option = str(detail["loc"][0]).replace("_", "-")
        reason = detail["msg"][0].lower() + detail["msg"][1:]
        raise UserError(f"tfnas profile: --{option} {detail['input']}: {reason}") from None


def summary(table: LatencyTable, space: Space, rows: list[Validated], path: Path) -> str:
    """What was measured, which latencies can be reached, how good the table is, and what to do next."""
    from tfnas.latency.profiler import width_advice
    from tfnas.stages.profile_latency import profile_metrics

    metrics = profile_metrics(table, space, rows)
    lines = [
        f"{path}: {metrics['operations']} operations at {metrics['knots']} widths on {table.device}"
        f" in {metrics['seconds']:.0f} s",
        f"Networks of {space.name} at {table.resolution}x{table.resolution}, batch {table.batch_size}: reachable are"
        f" {metrics['min_reachable_ms']:.3f} to {metrics['max_reachable_ms']:.3f} ms"
        f" (fixed parts {metrics['base_ms']:.3f} ms)",
    ]
    advice = width_advice(space, table)
    lines += [f"Advice: {advice}."] if advice else []
    lines += _adapted_lines(table)
    lines += _validation_lines(metrics, rows)
    lines.append(f"Next: tfnas latency ARCHITECTURE --table {path} shows where a network's time goes.")
    return "\n".join(lines)


def _adapted_lines(table: LatencyTable) -> Iterator[str]:
    """What the table was adapted from, and how well its operations are known."""
    facts = table.details.get("adapted_from")
    if facts is not None:
        yield (
            f"Adapted from the table of {facts['device']} ({facts.get('backend', 'unknown backend')}) by"
            f" {facts['tours']} tours and {facts['networks']} runs of whole networks: a block left out of the fit is"
            f" {facts['point_error_percent']:.1f} % off"
        )


def _told_hits(metrics: dict[str, float], prefix: str) -> str:
    """The hit rates, with the interval of the first."""
    from tfnas.latency.validation import WITHIN_PERCENT, hit_rates_text

    name = f"{prefix}within_{WITHIN_PERCENT[0]}_percent"
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    interval = "" if low is None else f" (95 % interval of the first {low:.0f} to {high:.0f} %)"
    return f"{hit_rates_text(metrics, prefix)}{interval}"


def _validation_lines(metrics: dict[str, float], rows: list[Validated]) -> Iterator[str]:
    published = sum(row.is_published for row in rows)
    groups = (("", len(rows) - published, "random networks of all sizes"), ("published_", published, "of the paper"))
    for prefix, count, what in groups:
        if count:
            error, rank = f"{prefix}mean_absolute_percentage_error", f"{prefix}spearman"
            low, high = metrics.get(f"{error}_low"), metrics.get(f"{error}_high")
            interval = "" if low is None else f"; 95 % interval over such networks {low:.1f} to {high:.1f} %"
            ranked = f", rank correlation {metrics[rank]:.3f}" if rank in metrics else ""
            yield (
                f"{count} {what}, measured whole: the table is {metrics[f'{prefix}bias_percent']:+.1f} % off on"
                f" average ({metrics[error]:.1f} % without signs{interval}{ranked}); {_told_hits(metrics, prefix)}"
            )
    if "calibration_applied" in metrics:
        before, after = (metrics[f"calibration_error_{name}_percent"] for name in ("before", "after"))
        what = "applied" if metrics["calibration_applied"] else "not applied: no sure gain, or not asked for"
        yield f"Its correction, by networks it was not fitted to: {before:.1f} % off becomes {after:.1f} %; {what}"
