"""kill -9 of an engine, alone or with its jobs, and of a job: the same command goes on, and nothing is done twice."""

from __future__ import annotations

import os
import signal

import pytest

from tests.helpers.engines.calls import call
from tests.helpers.engines.processes import DVC, SNAKEMAKE, TARGET, kill_alone, kill_group, started, steps


@pytest.mark.parametrize(("kill", "command"), [(kill_group, SNAKEMAKE), (kill_alone, SNAKEMAKE), (kill_alone, DVC)])
def test_the_same_command_goes_on_after_the_engine_was_killed(folder, kill, command) -> None:
    """Killed alone, the engine leaves its job running; that one must end, and may not run beside the next."""
    kill(started(folder, *command))
    text = call(folder, *command)
    assert (folder / TARGET).exists()
    assert ("its lock is cleared" in text) == (command == SNAKEMAKE)
    numbers, processes = zip(*steps(folder), strict=True)
    assert sorted(set(numbers)) == list(range(1, 31))
    assert len(numbers) <= 31  # the one under way when it was killed
    assert len(set(processes)) == 2 and sorted(processes, key=processes.index) == list(processes)  # no two at once


def test_the_same_command_goes_on_after_a_job_was_killed(folder) -> None:
    engine = started(folder, *SNAKEMAKE)
    os.kill(steps(folder)[-1][1], signal.SIGKILL)
    engine.communicate()
    assert engine.returncode == 1 and not (folder / TARGET).exists()
    call(folder, *SNAKEMAKE)
    assert (folder / TARGET).exists() and len(steps(folder)) <= 31
