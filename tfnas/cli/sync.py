"""`tfnas sync`: Snakemake and DVC learn of each other's work."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Tell Snakemake and DVC what the other one has done, without running anything again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=Path(), help="project folder (default: this one)")
    parser.add_argument("--if-moved", action="store_true", help="only where DVC has run since the last sync")


def run(options: argparse.Namespace) -> None:
    from tfnas.engines.dvc_lock import lock_has_moved

    if options.if_moved and not lock_has_moved(options.folder):
        return
    from tfnas.engines.running import check_idle
    from tfnas.engines.sync import sync

    check_idle(options.folder)

    synced = sync(options.folder)
    print(f"{synced.told} now knows: {len(synced.done)} stages up to date, {len(synced.stale)} to run.")
    for name in synced.stale:
        print(f"  to run: {name}")
