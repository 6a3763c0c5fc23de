"""A stage whose work a test makes up: options, checks, log, tracking and provenance are the real ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from tfnas.stages import job as stage_job
from tfnas.stages.job import Job
from tfnas.stages.registry import STAGES


def parse_stage(name: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a stage's script."""
    return stage_job._parser(STAGES[name]).parse_args(arguments)


def help_of(name: str) -> str:
    """What a stage's script prints for --help, in one line."""
    return " ".join(stage_job._parser(STAGES[name]).format_help().split())


def run_fake_stage(
    name: str,
    arguments: Sequence[str],
    *,
    run: Callable[[Job], object],
    check: Callable[[Job], object] = lambda job: None,
    reads: Callable[[Job], list[Path]] | None = None,
) -> Job:
    """Run a stage's script without its one-line errors; the job as it was when it ended."""
    jobs: list[Job] = []

    def keep(job: Job, checked: object) -> None:
        jobs.append(job)
        run(job)

    fake = SimpleNamespace(check=check, run=keep, **({"reads": reads} if reads else {}))
    with patch.object(stage_job, "_module_of", lambda stage: fake):
        stage_job._main(STAGES[name], arguments)
    return jobs[0]
