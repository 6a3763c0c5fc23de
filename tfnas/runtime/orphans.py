"""Ends a job whose engine has been killed: it would go on unseen, and the next run would meet it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Any

ENGINE = "TFNAS_ENGINE"  # process id of the Snakemake that runs the job; the Snakefile sets it
DVC = "DVC_STAGE"  # set by DVC
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")
POLL_SECONDS = 0.5
GRACE_SECONDS = 20.0
ENDS_WITHIN_SECONDS = 2 * POLL_SECONDS + GRACE_SECONDS  # what the next run has to wait at most

logger = logging.getLogger("tfnas.orphans")


def end_with_engine() -> None:
    """Watch the engine that started this job; interrupt the job, as Ctrl-C does, when the engine has gone.

    SIGTERM, by which clusters end jobs, interrupts it from now on as well. A job that no engine started is left alone.
    """
    if ENGINE not in os.environ and DVC not in os.environ:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGINT is ignored by what a script runs with `&`
    threading.Thread(target=_watch, args=(_engine(),), daemon=True).start()


def _engine() -> Any:
    """The engine's process; None when it has ended already."""
    import psutil

    try:
        if ENGINE in os.environ:
            return psutil.Process(int(os.environ[ENGINE]))
        return next(process for process in psutil.Process().parents() if process.name() not in SHELLS)
    except (psutil.NoSuchProcess, StopIteration):
        return None


def _watch(engine: Any) -> None:
    while engine is not None and _is_alive(engine):
        time.sleep(POLL_SECONDS)
    logger.warning("the engine that ran this job has ended, so the job ends; the same command goes on with it")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(130)  # in the middle of a long call


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
