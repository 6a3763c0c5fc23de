"""`tfnas zoo`: list, print and draw the twelve networks that the paper publishes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.cli._console import OutputFile, layout
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require

if TYPE_CHECKING:
    from tfnas.space import Architecture

HELP = "List the paper's twelve networks, or show one of them or one that you found."
COLUMNS = ("stage", "input", "operation", "C_in", "e*C_in", "e_se*C_in", "C_out", "act", "stride")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    text = "List the networks with their multiply-adds, parameters and ImageNet accuracy in the paper."
    listing = commands.add_parser("list", help=text, description=text)
    listing.set_defaults(zoo=lambda options: list_networks())
    text = "Print a network as in the paper's Tables 14 to 25, with its totals, and optionally draw it."
    show = commands.add_parser("show", help=text, description=text)
    show.add_argument("network", metavar="NETWORK", help="a name from `tfnas zoo list`, or an architecture.json")
    show.add_argument("--resolution", type=int, default=224, metavar="N", help="image height and width (default: 224)")
    show.add_argument("--classes", type=int, default=1000, metavar="N", help="number of classes (default: 1000)")
    show.add_argument("--svg", type=OutputFile, metavar="FILE", help="also draw it, as SVG")
    show.add_argument("--png", type=OutputFile, metavar="FILE", help="also draw it, as PNG")
    show.set_defaults(zoo=show_network)


def run(options: argparse.Namespace) -> None:
    options.zoo(options)


def list_networks() -> None:
    from tfnas.space import count_macs, count_params, zoo

    rows = [("name", "multiply-adds", "parameters", "top-1 (paper)", "table", "space")]
    for name in zoo.names():
        architecture, published = zoo.load(name), zoo.published(name)
        macs, params = _millions(count_macs(architecture)), _millions(count_params(architecture))
        rows.append((name, macs, params, f"{published.top1} %", str(published.table), architecture.space))
    print(layout(rows, left={0, 5}))


def show_network(options: argparse.Namespace) -> None:
    _check(options)
    architecture = read_network(options.network)
    rows = [COLUMNS, *table_rows(architecture, options.resolution, options.classes)]
    print(f"{architecture.name} (space {architecture.space})\n")
    print(layout(rows, left={1, 2, 7}))
    print(f"\n{totals(architecture, options.resolution, options.classes)}")
    for path in (options.svg, options.png):
        if path is not None:
            from tfnas.report.figures.drawing import draw_architecture

            draw_architecture(architecture, path)
            print(f"{path}: drawn")


def _check(options: argparse.Namespace) -> None:
    if options.resolution < 1 or options.classes < 1:
        raise UserError("zoo show: --resolution and --classes must be 1 or more")
    for kind in ("svg", "png"):
        path = getattr(options, kind)
        if path is not None and path.suffix.lower() != f".{kind}":
            raise UserError(f"zoo show: --{kind} {path}: the name must end in .{kind}")
        if path is not None:
            require("report", by=f"tfnas zoo show --{kind}")


def read_network(name_or_file: str) -> Architecture:
    """A published network by its name, or the architecture in a file.

    Raises:
        UserError: unknown name, or a file that is not a valid architecture.
    """
    from tfnas.space import Architecture, zoo

    if name_or_file not in zoo.names() and (name_or_file.endswith(".json") or Path(name_or_file).exists()):
        return Architecture.load(name_or_file)
    return zoo.load(name_or_file)


def table_rows(architecture: Architecture, resolution: int, num_classes: int) -> Iterator[tuple[str, ...]]:
    """The cells of each row, as in `COLUMNS`."""
    from tfnas.space.space import halve

    stem, head, last = architecture.stem, architecture.head, architecture.blocks[-1]
    size = halve(resolution, stem.stride)
    yield _row(
        "1", resolution, f"Conv k{stem.kernel}", stem.in_channels, "-", "-", stem.out_channels, stem.act, stem.stride
    )
    for size, block in architecture.block_resolutions(resolution):
        yield _row(
            block.stage,
            size,
            f"MBInvRes k{block.kernel}",
            block.in_channels,
            block.expand_channels,
            block.se_channels,
            block.out_channels,
            block.act,
            block.stride,
        )
    size, stage = halve(size, last.stride), last.stage
    yield _row(stage + 1, size, "Conv k1", last.out_channels, "-", "-", head.out_channels, head.act, 1)
    yield _row(stage + 2, size, "AvgPool", head.out_channels, "-", "-", head.out_channels, "-", "-")
    yield _row(stage + 3, 1, "Fc", head.out_channels, "-", "-", num_classes, "-", "-")


def _row(stage: object, size: int, operation: str, in_channels: int, *cells: object) -> tuple[str, ...]:
    return (str(stage), f"{size}x{size}x{in_channels}", operation, str(in_channels), *map(str, cells))


def totals(architecture: Architecture, resolution: int, num_classes: int) -> str:
    """Multiply-adds and parameters, as text."""
    from tfnas.space import count_macs, count_params

    macs, params = count_macs(architecture, resolution, num_classes), count_params(architecture, num_classes)
    return (
        f"{_millions(macs)} multiply-adds, {_millions(params)} parameters"
        f" ({resolution}x{resolution} input, {num_classes} classes)"
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"
