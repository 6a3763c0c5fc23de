"""Two jobs side by side get a GPU each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tfnas.compute import devices as gpus
from tfnas.compute.devices import VISIBLE, claim_gpu, visible_gpus

CLAIM = (
    "import sys; from tfnas.compute.devices import claim_gpu; print(claim_gpu('cuda'), flush=True); sys.stdin.read()"
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with two GPUs, and claims of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv(VISIBLE, "0,GPU-abc")
    monkeypatch.setattr(gpus, "_claimed", [])


def start() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CLAIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_each_job_has_a_gpu_of_its_own_until_it_ends(machine) -> None:
    first, second = start(), start()
    got = [job.stdout.readline().strip() for job in (first, second)]
    assert sorted(got) == ["0", "GPU-abc"]
    assert claim_gpu("cuda") is None  # all taken: shared, and the log says so
    second.kill()
    second.wait()
    assert claim_gpu("cuda") == got[1] == os.environ[VISIBLE]
    first.communicate("")


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_choice_that_is_made_stays(machine, device) -> None:
    assert claim_gpu(device) is None
    assert os.environ[VISIBLE] == "0,GPU-abc"


def test_one_gpu_or_processes_of_torchrun_are_left_alone(machine, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert claim_gpu("cuda") is None
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv(VISIBLE, "3")
    assert claim_gpu("cuda") is None and os.environ[VISIBLE] == "3"


def test_gpus_are_counted_with_and_without_the_variable(machine, tmp_path, monkeypatch) -> None:
    assert visible_gpus() == ["0", "GPU-abc"]
    monkeypatch.setenv(VISIBLE, "")
    assert visible_gpus() == []
    monkeypatch.delenv(VISIBLE)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A (UUID: GPU-1)'\necho 'GPU 1: NVIDIA A (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert visible_gpus() == ["0", "1"]
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
