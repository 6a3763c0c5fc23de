"""Engines as processes that a test can watch and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers.engines.calls import environment

TARGET = "results/rank_classes/metrics.json"
SNAKEMAKE = ("snakemake", "--cores", "2", TARGET)
DVC = ("dvc", "repro", "rank_classes")


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    """An engine in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def steps(folder: Path) -> list[tuple[int, int]]:
    """Number and process of each step that was made, in order."""
    path = folder / "logs" / "steps"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[1]), int(line.split()[2])) for line in lines]


def wait_for(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def started(folder: Path, *command: str, at_step: int = 3) -> subprocess.Popen[str]:
    """An engine whose job has made some steps."""
    engine = start(folder, *command)
    wait_for(lambda: len(steps(folder)) >= at_step or engine.poll() is not None)
    assert engine.poll() is None, engine.communicate()[0]
    return engine


def kill_group(engine: subprocess.Popen[str]) -> None:
    os.killpg(engine.pid, signal.SIGKILL)
    engine.communicate()


def kill_alone(engine: subprocess.Popen[str]) -> None:
    engine.kill()
    engine.wait()
