"""`tfnas table`: the ready-made latency tables, listed with where they come from, and copied."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfnas.cli._console import OutputFile, layout

if TYPE_CHECKING:
    from tfnas.tables.shipped import Shipped

HELP = (
    "List the latency tables that come with tfnas, or copy one. A name of one may be written wherever a command takes"
    " a table's file."
)
COLUMNS = (
    "name",
    "device",
    "backend",
    "threads",
    "batch",
    "space",
    "size",
    "measured",
    "tfnas",
    "error",
    "within 5 %",
    "within 10 %",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    text = "List the tables with device, backend, threads, date, version and error on whole networks."
    listing = commands.add_parser("list", help=text, description=text)
    listing.set_defaults(table_command=lambda options: list_tables())
    text = "Write a table to a file, by default to where profile_latency.table finds it."
    copying = commands.add_parser("copy", help=text, description=text)
    copying.add_argument("name", metavar="NAME", help="a name from `tfnas table list`")
    copying.add_argument(
        "--out", type=OutputFile, metavar="FILE", help="file to write (default: inputs/tables/NAME.json)"
    )
    copying.set_defaults(table_command=copy_table)


def run(options: argparse.Namespace) -> None:
    options.table_command(options)


def list_tables() -> None:
    from tfnas.tables.shipped import describe, names

    rows = [COLUMNS, *(tuple(_cells(describe(name))) for name in names())]
    print(layout(rows, left={0, 1, 2, 5}))
    print(
        "\nError and shares: whole random networks, each by a correction fitted to the others. Another machine of the"
    )
    print("same name may be faster or slower: `tfnas profile --from NAME` adapts a table to yours.")


def _cells(table: Shipped) -> Iterator[str]:
    yield from (table.name, table.device, f"{table.backend} {table.precision}", str(table.threads))
    yield from (str(table.batch_size), table.space, f"{table.resolution}x{table.resolution}")
    yield from (table.measured_on, table.version)
    yield "-" if table.error_percent is None else f"{table.error_percent:.1f} %"
    for limit in (5, 10):
        yield f"{table.within_percent[limit]:.0f} %" if limit in table.within_percent else "-"


def copy_table(options: argparse.Namespace) -> None:
    from tfnas.tables.shipped import INPUTS, copy

    path = options.out or INPUTS / f"{options.name}.json"
    copy(options.name, path)
    print(f"{path}: written; name it in params.yaml as profile_latency.table: {path}")
