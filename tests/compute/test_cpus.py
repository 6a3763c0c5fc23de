"""CPUs that a process may use, not those that are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfnas.compute import devices
from tfnas.compute.devices import _cpu_quotas, allowed_cpus, warn_of_threads

PROGRAM = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from tfnas.compute.devices import *"


def test_one_allowed_cpu_as_under_taskset() -> None:
    command = [sys.executable, "-c", f"{PROGRAM}; print(allowed_cpus())"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "max 100000"}, []),
        ({"cpu.max": "100000 100000"}, [1]),
        ({"cpu.max": "150000 100000"}, [2]),
        ({"cpu.max": "5000 100000"}, [1]),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, [4]),
        ({"cpu.max": "rubbish"}, []),
        ({}, []),
    ],
)
def test_time_limits_of_containers(tmp_path: Path, files: dict[str, str], cpus: list[int]) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert _cpu_quotas(tmp_path) == cpus


def test_the_smallest_limit_counts(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for quotas, cpus in (([], 8), ([3], 3), ([64], 8)):
        monkeypatch.setattr(devices, "_cpu_quotas", lambda quotas=quotas: quotas)
        assert allowed_cpus() == cpus


def test_more_threads_than_cpus_are_said_once(monkeypatch, capsys, caplog) -> None:
    monkeypatch.setattr(devices, "allowed_cpus", lambda: 1)
    warn_of_threads.cache_clear()
    for threads in (1, 4, 4):
        warn_of_threads(threads)
    warn_of_threads.cache_clear()
    assert capsys.readouterr().err.count("4 threads share the 1 CPUs") == 1 == len(caplog.records)
