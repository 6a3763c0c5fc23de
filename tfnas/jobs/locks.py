"""One process per job: lock files that the kernel frees when their owner ends, and the engine watchdog.

The watchdog ends a job whose engine was killed; otherwise it would run on unseen and collide with the next run.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tfnas.jobs.errors import UserError

POLL_SECONDS = 0.5  # between two looks at a lock or at the engine
ENGINE = "TFNAS_ENGINE"  # process id of the Snakemake that runs the job; the Snakefile sets it
DVC = "DVC_STAGE"  # set by DVC
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")
GRACE_SECONDS = 20.0
ENDS_WITHIN_SECONDS = 2 * POLL_SECONDS + GRACE_SECONDS  # the longest that the next run has to wait

logger = logging.getLogger("tfnas.watchdog")


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


def _open(path: Path) -> IO[str]:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # the other process has just removed the folder
            continue


def release_lock(file: IO[str], path: Path) -> None:
    path.unlink(missing_ok=True)
    file.close()


def end_with_engine() -> None:
    """Watch the engine that started this job; interrupt the job, as Ctrl-C does, when the engine has gone.

    SIGTERM, by which clusters end jobs, interrupts it from now on as well. A job that no engine started is left alone.
    """
    if ENGINE not in os.environ and DVC not in os.environ:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGINT is ignored by what a script runs with `&`
    threading.Thread(target=_watch, args=(_engine(),), daemon=True).start()


def _watch(engine: Any) -> None:
    while engine is not None and _is_alive(engine):
        time.sleep(POLL_SECONDS)
    logger.warning("the engine that ran this job has ended, so the job ends; the same command resumes it")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(130)  # in the middle of a long call


def _engine() -> Any:
    """The engine's process; None when it has ended already."""
    import psutil

    try:
        if ENGINE in os.environ:
            return psutil.Process(int(os.environ[ENGINE]))
        return next(process for process in psutil.Process().parents() if process.name() not in SHELLS)
    except (psutil.NoSuchProcess, StopIteration):
        return None


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
