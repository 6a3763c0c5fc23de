"""Replaces a stage's script by a job of many short steps that saves each one, as a search saves its epochs.

It locks, watches its engine and resumes as the real ones do. Its steps are written to logs/steps, so that a test sees
what was done twice; then it writes what `stub_stage` writes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.helpers.engines.stub_stage import parse, run
from tfnas.jobs.artifacts import write_text
from tfnas.stages.job import open_alone, run_script

STEPS = int(os.environ.get("TFNAS_STEPS", "30"))
STEP_SECONDS = 0.1
GO = os.environ.get("TFNAS_GO")  # a file that the fourth step waits for


def main(script: str) -> None:
    """A stage's script in a project's `workflow/scripts`."""
    run_script(lambda: _make_steps(Path(script).resolve()))


def _make_steps(script: Path) -> None:
    options = parse(sys.argv[1:])
    with open_alone(options):
        saved = Path("checkpoints") / options.out.relative_to("results") / "step"
        done = int(saved.read_text()) if saved.exists() else 0
        for step in range(done + 1, STEPS + 1):
            time.sleep(STEP_SECONDS)
            while GO and step > 3 and not Path(GO).exists():
                time.sleep(STEP_SECONDS)
            write_text(saved, str(step))
            with Path("logs/steps").open("a") as file:
                file.write(f"{options.out} {step} {os.getpid()}\n")
        run(script.stem, options, script.parents[2])
        saved.unlink()
