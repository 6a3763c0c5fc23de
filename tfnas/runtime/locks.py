"""Lock files that the kernel frees when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tfnas.runtime.errors import UserError

POLL_SECONDS = 0.2


@contextmanager
def held_lock(path: Path, *, job: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a job's lock file during the block, and remove it at the end.

    Args:
        job: what the error names.
        wait_seconds: how long another process may take to end.

    Raises:
        UserError: another process holds it still.
    """
    file = take_lock(path, job=job, wait_seconds=wait_seconds)
    try:
        yield
    finally:
        release_lock(file, path)


def take_lock(path: Path, *, job: str, wait_seconds: float = 0.0) -> IO[str]:
    """The open, locked file, with this process's id in it; see `held_lock`."""
    until = time.monotonic() + wait_seconds
    while True:
        file = _open(path)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by loader processes
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            if time.monotonic() < until:
                time.sleep(POLL_SECONDS)
                continue
            raise UserError(f"{job}: another process ({owner}) runs this job; wait until it ends, or stop it") from None
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()  # the other process removed it between our opening and locking


def release_lock(file: IO[str], path: Path) -> None:
    path.unlink(missing_ok=True)
    file.close()


def _open(path: Path) -> IO[str]:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # the other process has just removed the folder
            continue
