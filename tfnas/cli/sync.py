"""`tfnas sync`: tell Snakemake and DVC about each other's work."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfnas.jobs.extras import require

HELP = "Tell Snakemake and DVC what the other has done, without running anything again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=Path(), help="project folder (default: the current one)")


def run(options: argparse.Namespace) -> None:
    require("pipeline", by="tfnas sync")
    from tfnas.engines.snakemake import check_idle
    from tfnas.engines.sync import sync

    check_idle(options.folder)
    synced = sync(options.folder)
    print(f"{synced.told} now knows: {len(synced.done)} stages up to date, {len(synced.stale)} to run.")
    for name in synced.stale:
        reason = synced.refused.get(name)
        print(f"  to run: {name}" + (f" ({reason})" if reason else ""))
