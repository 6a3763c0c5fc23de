"""The Slurm profile on a real Slurm: where sbatch and the plugin are there and a node is up."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess

import pytest

from tests.helpers.engines.calls import call
from tests.helpers.engines.processes import TARGET, kill_group, started, steps


def _is_up() -> bool:
    if shutil.which("sbatch") is None or importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return False
    shown = subprocess.run(["sinfo", "--noheader", "-o", "%T"], capture_output=True, text=True)
    return shown.returncode == 0 and any(word in shown.stdout for word in ("idle", "mixed", "allocated"))


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not _is_up(), reason="needs a Slurm that runs, and its plugin")]

# sites with accounting need none of these; the test machine has none, and shows new files at once
SLURM = ("snakemake", "--workflow-profile", "slurm", "--latency-wait", "5", "--slurm-status-command", "squeue")
QUICK = ("--slurm-init-seconds-before-status-checks", "2")


def test_jobs_run_under_slurm_with_the_resources_of_params(folder, monkeypatch) -> None:
    monkeypatch.setenv("TFNAS_STEPS", "40")
    engine = started(folder, *SLURM, *QUICK, TARGET)
    shown = subprocess.run(["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True).stdout
    (job,) = [line for line in shown.splitlines() if "rule_rank_classes" in line and "JobState=RUNNING" in line]
    assert "TimeLimit=00:30:00" in job and "mem=4000M" in job.replace("mem=3.91G", "mem=4000M")
    text = engine.communicate()[0]
    assert engine.returncode == 0, text
    assert "slurm" in text.lower() and (folder / TARGET).exists()


def test_a_killed_job_is_tried_again_from_its_last_step(folder) -> None:
    engine = started(folder, *SLURM, *QUICK, TARGET)
    os.kill(steps(folder)[-1][1], signal.SIGKILL)
    text = engine.communicate()[0]
    assert engine.returncode == 0, text
    assert len(steps(folder)) <= 31 and len({process for _, process in steps(folder)}) == 2


def test_jobs_of_a_killed_engine_are_ended_and_go_on(folder, monkeypatch) -> None:
    monkeypatch.setenv("TFNAS_STEPS", "200")
    kill_group(started(folder, *SLURM, *QUICK, TARGET))
    text = call(folder, *SLURM, *QUICK, TARGET)
    assert "its jobs on the cluster are ended" in text
    numbers, processes = zip(*steps(folder), strict=True)
    assert sorted(set(numbers)) == list(range(1, 201)) and len(set(processes)) == 2
    assert sorted(processes, key=processes.index) == list(processes)  # no two at once
