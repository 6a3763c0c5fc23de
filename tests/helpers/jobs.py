"""Jobs of stages, run in the test's own process: no script, log, provenance or tracking."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from tfnas.stages.job import Job
from tfnas.stages.params import Params
from tfnas.stages.registry import STAGES
from tfnas.tracking.runs import NoRun


def make_job(
    stage: str,
    folder: Path,
    params: Params,
    inputs: Mapping[str, Path],
    target: str | None = None,
    dataset: str | None = None,
) -> Job:
    """A job that writes into `folder`, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    return Job(STAGES[stage], params, inputs, folder, NoRun(), target, dataset)


def run_job(job: Job) -> None:
    """Check a job and run it, as its script does; the checkpoints remain until `job.end()`."""
    module = importlib.import_module(f"tfnas.stages.{job.stage.name}")
    module.run(job, module.check(job))
