"""Jobs of stages, run in the test's own process."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfnas.stages.job import Job, run_stage
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
    network: str | None = None,
) -> Job:
    """A job that writes into `folder`, which is created; it leaves no log, provenance or tracking run."""
    folder.mkdir(parents=True, exist_ok=True)
    return Job(STAGES[stage], params, inputs, folder, NoRun(), target, dataset, network)


def run_job(job: Job) -> None:
    """Check a job and run it, as its script does; the checkpoints remain until `job.end()`."""
    module = importlib.import_module(f"tfnas.stages.{job.stage.name}")
    module.run(job, module.check(job))


def refusal(stage: str, folder: Path, arguments: Sequence[str]) -> str:
    """What a stage's script says in `folder` when it ends with a user's mistake; without the start of a process."""
    said, logger = io.StringIO(), logging.getLogger("tfnas")
    handlers = logger.handlers.copy()
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            run_stage(stage, arguments)
    except SystemExit as ended:
        assert ended.code == 2, ended.code
    else:
        raise AssertionError(f"{stage} went through")
    finally:
        logger.handlers[:] = handlers
    return said.getvalue()
