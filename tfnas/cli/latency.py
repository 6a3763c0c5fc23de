"""`tfnas latency`: the latency that a table predicts for a network, layer by layer; and the table's curves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfnas.cli._console import OutputFile, layout
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require

if TYPE_CHECKING:
    from tfnas.latency import LatencyTable
    from tfnas.space import Architecture

HELP = (
    "Predict a network's latency from a latency table, layer by layer, without running it; or plot the table's"
    " latencies against width."
)
COLUMNS = ("stage", "operation", "width", "ms", "share")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network",
        metavar="ARCH",
        nargs="?",
        help="a name from `tfnas zoo list` (TF-NAS-A), or an architecture.json",
    )
    parser.add_argument(
        "--table",
        required=True,
        metavar="FILE_OR_NAME",
        help="latency table written by `tfnas profile` or the stage profile_latency, or a name of `tfnas table list`",
    )
    parser.add_argument(
        "--plot",
        type=OutputFile,
        metavar="FILE",
        help="plot latency against width for every operation, as .svg or .png",
    )


def run(options: argparse.Namespace) -> None:
    if options.network is None and options.plot is None:
        raise UserError("tfnas latency: name a network (see `tfnas zoo list`), or --plot FILE")
    if options.plot is not None:
        require("report", by="tfnas latency --plot")
    from tfnas.tables.shipped import open_table

    table = open_table(options.table)
    if options.network is not None:
        print_layers(options.network, table)
    if options.plot is not None:
        from tfnas.report.figures.latency import draw_latency_curves

        draw_latency_curves(table, options.plot)
        print(f"{options.plot}: {len(table.curves)} operations drawn")


def print_layers(network: str, table: LatencyTable) -> None:
    """Print the layer-by-layer table of a network, named or in a file."""
    from tfnas.cli.zoo import read_network

    architecture = read_network(network)
    rows = list(table_rows(architecture, table))
    print(f"{architecture.name} on {table.device}, {table.resolution}x{table.resolution}, batch {table.batch_size}\n")
    print(layout([COLUMNS, *rows], left={1}))


def table_rows(architecture: Architecture, table: LatencyTable) -> Iterator[tuple[str, ...]]:
    """The cells of each row, as in `COLUMNS`: the fixed parts, every block, the total.

    Raises:
        UserError: the table has no such operation or width.
    """
    from tfnas.latency import OperationKey

    total_ms = table.latency_ms(architecture)

    def cells(stage: str, operation: str, width: str, ms: float) -> tuple[str, ...]:
        return stage, operation, width, f"{ms:.3f}", f"{100 * ms / total_ms:.1f} %"

    parts = table.details.get("fixed_parts_ms", {})
    yield cells("-", f"base ({', '.join(parts) or 'the fixed parts'})", "-", table.base_ms)
    blocks = table.blocks_ms(architecture)
    sizes = [size for size, b in architecture.block_resolutions(table.resolution) if b.stage not in table.fixed_stages]
    for size, (block, ms) in zip(sizes, blocks, strict=True):
        yield cells(str(block.stage), str(OperationKey.of_block(size, block)), str(block.expand_channels), ms)
    yield cells("", "total", "", total_ms)
