"""Engines in one project folder: which of them runs, and what one that was killed has left behind.

Every Snakemake keeps `PRESENCE` locked while it lives; the kernel frees it when the process ends, however it ends. So
Snakemake's own lock, which a `kill -9` leaves behind, is known to be stale when nobody holds `PRESENCE`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import IO

from tfnas.engines.dvc_users import check_dvc_idle
from tfnas.runtime.artifacts import digest_text
from tfnas.runtime.errors import UserError

SNAKEMAKE = Path(".snakemake")
PRESENCE = SNAKEMAKE / "tfnas-present"
LOCKS = SNAKEMAKE / "locks"
KUBERNETES_CLAIM = "TFNAS_CLAIM"  # set for profiles/kubernetes
WRITTEN = ("results", "logs", "checkpoints", ".snakemake")

_present: dict[Path, IO[str]] = {}  # open, so locked, until this process ends


def check_writable(folder: Path) -> None:
    """Look at the folders that a run writes into, before any job starts.

    Raises:
        UserError: one of them cannot be written.
    """
    for path in (folder, *(folder / name for name in WRITTEN)):
        if path.is_dir() and not os.access(path, os.W_OK):
            raise UserError(
                f"{path}: cannot be written; mount it read-write or change its permissions, and run the same command"
                " again"
            )


def check_idle(folder: Path) -> None:
    """Raise UserError where an engine runs in this folder: DVC, or a Snakemake other than this process."""
    check_dvc_idle(folder)
    path = folder / PRESENCE
    if path.exists():
        with path.open("a+", encoding="utf-8") as file:
            if not _nobody_else(file):
                raise UserError(f"{folder.resolve()}: Snakemake runs here; wait until it ends, or stop it")


def enter(folder: Path) -> bool:
    """Say that a Snakemake lives in this folder; clear the lock of one that was killed, where no other one lives.

    Returns:
        Whether there was such a lock.
    """
    path = (folder / PRESENCE).resolve()
    if path in _present:
        return False
    path.parent.mkdir(exist_ok=True)
    _present[path] = file = path.open("a+", encoding="utf-8")
    try:
        alone = _nobody_else(file)
        stale = alone and (folder / LOCKS).is_dir() and any((folder / LOCKS).iterdir())
        if stale:
            shutil.rmtree(folder / LOCKS)
        fcntl.lockf(file, fcntl.LOCK_SH)  # waits the moment that another one takes to look, as above
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a network disk without locks
            raise
        return False
    return stale


def cancel_cluster_jobs(folder: Path) -> list[str]:
    """End the cluster's jobs that a killed Snakemake has submitted from this folder: they would meet their successors.

    The jobs are asked of the cluster: Snakemake's own note of their numbers is lost when they start.

    Returns:
        What was ended; nothing where there is no cluster.
    """
    where = str(folder.resolve())
    ended = []
    if shutil.which("squeue"):
        rows = _answer("squeue", "--me", "--noheader", "--format=%i|%k|%Z").splitlines()  # id, comment, folder
        found = [row.split("|") for row in rows if row.count("|") == 2]
        ended = [job for job, comment, place in found if comment.startswith("rule_") and place == where]
        if ended:
            _answer("scancel", *ended)
    if KUBERNETES_CLAIM in os.environ and shutil.which("kubectl"):
        label = f"tfnas-project={digest_text(where)[:16]}"
        ended += _answer("kubectl", "delete", "job", "--selector", label, "--output=name").split()
    return ended


def _answer(*command: str) -> str:
    """What a cluster's command prints; nothing where it fails."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def _nobody_else(file: IO[str]) -> bool:
    """Take the lock for this process alone, if nobody has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
