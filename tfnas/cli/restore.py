"""`tfnas restore`: the results of the commit that is checked out."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfnas.jobs.errors import UserError

HELP = (
    "Put the results that dvc.lock records in place, from the DVC cache, and tell Snakemake: after `git checkout` of"
    " another commit, `git pull` or `dvc pull`."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=Path(), help="project folder (default: this one)")
    parser.add_argument("--force", action="store_true", help="also replace results that DVC has never saved")


def run(options: argparse.Namespace) -> None:
    from tfnas.engines.snakemake import check_idle
    from tfnas.engines.sync import restore

    check_idle(options.folder)
    restored = restore(options.folder, force=options.force)
    print(f"Restored: {len(restored.done)} stages up to date in both engines, {len(restored.stale)} to run.")
    for name in restored.stale:
        print(f"  to run: {name}")
    if restored.missing:
        more = f" and {len(restored.missing) - 1} more" if len(restored.missing) > 1 else ""
        raise UserError(
            f"dvc.lock: {restored.missing[0]}{more} not in the DVC cache; `dvc pull` fetches from a remote, where one"
            " is set up (docs/engines.md), then run this again; or `make run` makes them anew"
        )
