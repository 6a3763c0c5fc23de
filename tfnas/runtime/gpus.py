"""Which GPUs this machine has, and one of them for each job that runs on it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from tfnas.compute import distributed

VISIBLE = "CUDA_VISIBLE_DEVICES"

_claimed: list[IO[str]] = []  # open, so locked, until this process ends

logger = logging.getLogger("tfnas.gpus")


def visible_gpus() -> list[str]:
    """The GPUs that a process started here may use, by number or UUID as CUDA_VISIBLE_DEVICES takes them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name and name != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


def claim_gpu(device: str) -> str | None:
    """Take a GPU that no other job of tfnas on this machine has; before torch looks for CUDA.

    Without it two jobs side by side on `cuda` would both compute on the first one.

    Returns:
        The GPU; None where the choice is made already (cpu, cuda:N, torchrun, one GPU), or where all are taken.
    """
    if device != "cuda" or distributed.world_size() > 1 or len(gpus := visible_gpus()) < 2:
        return None
    for gpu in gpus:
        file = (Path(tempfile.gettempdir()) / f"tfnas-{os.getuid()}-gpu-{gpu}.lock").open("a", encoding="utf-8")
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _claimed.append(file)
            os.environ[VISIBLE] = gpu
            return gpu
        file.close()
    logger.warning("all of the GPUs %s are in use by other jobs; this one shares the first", ", ".join(gpus))
    return None
