"""`tfnas estimate`: how long the pipeline will take with a params.yaml, from steps measured on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.cli._console import check_numbers, layout
from tfnas.jobs.extras import require

if TYPE_CHECKING:
    from tfnas.cli.estimate.measured import Measured
    from tfnas.stages.params import Params

BUSY_CORES = 0.3  # of other programs, from which on a measured step is too long
HELP = "Measure single steps for about half a minute, and say how long each stage of the pipeline will take."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--params", type=Path, default=Path("params.yaml"), help="parameter file (default: params.yaml)"
    )
    parser.add_argument("--cores", type=int, metavar="N", help="of `snakemake --cores N` (default: all)")


def run(options: argparse.Namespace) -> None:
    check_numbers(options, "estimate", {"cores": 1})
    require("pipeline", by="tfnas estimate")
    from tfnas.stages.params import check_named_files, load_params

    params = load_params(options.params)
    check_named_files(params, options.params)
    from tfnas.cli.estimate.measured import check_limits, measure

    measured = measure(params)
    check_limits(params, measured.reach, command="estimate")
    print(time_table(params, measured, options.cores))


def time_table(params: Params, measured: Measured, cores: int | None = None) -> str:
    """Seconds of each stage and of the whole run, as printed."""
    from tfnas.cli.estimate.schedule import job_times, stage_seconds
    from tfnas.compute.devices import allowed_cpus, visible_gpus

    cores = cores or allowed_cpus()
    gpus = 0 if params.device.name == "cpu" else len(visible_gpus())
    jobs = job_times(params, measured.counts, measured.times, cores)
    seconds = stage_seconds(jobs, params, cores, gpus)
    rows = [("stage", "about", "of which")]
    for stage, taken in seconds.items():
        job = next(job for job in jobs if job.stage == stage)
        largest = max(job.parts, key=lambda part: part.count * part.seconds)
        several = sum(other.stage == stage for other in jobs)
        times = f"{several} times " if several > 1 else ""
        rows.append((stage, duration(taken), f"{times}{largest.count:,.0f} x {largest.what}, {largest.seconds:.3g} s"))
    rows.append(("all", duration(sum(seconds.values())), f"on {cores} of this machine's cores"))
    busy = measured.busy_cores
    loaded = (
        f"\nOther programs kept about {busy:.1f} cores busy: an idle machine is faster." if busy > BUSY_CORES else ""
    )
    return layout(rows, left={0, 2}) + loaded


def duration(seconds: float) -> str:
    """As a person says it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
