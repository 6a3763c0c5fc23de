"""`tfnas restore`: bring back the results of the commit that is checked out."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require

HELP = (
    "Restore the results recorded in dvc.lock from the DVC cache, and tell Snakemake about them. Use it after"
    " `git checkout`, `git pull` or `dvc pull`."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=Path(), help="project folder (default: the current one)")
    parser.add_argument("--force", action="store_true", help="also replace results that DVC has never saved")


def run(options: argparse.Namespace) -> None:
    require("pipeline", by="tfnas restore")
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
            " is set up (docs/engines.md), then run this again; or `make run` computes them again"
        )
