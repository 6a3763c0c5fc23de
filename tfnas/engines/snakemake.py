"""Snakemake in a project folder: checks before a run, calling it, and its records and timestamps of outputs.

Every Snakemake keeps `PRESENCE` locked while it lives, and the kernel frees that lock however the process ends. So
Snakemake's own lock, which a `kill -9` leaves behind, is known to be stale when nobody holds `PRESENCE`.

Snakemake 9.27, which constraints.txt pins, keeps a JSON file for each output under `.snakemake/metadata`. Its `endtime`
is the output's modification time when its job ended or when it was touched. A file with another time has been written
since by something else: DVC, or a person.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from tfnas.engines.dvc import check_dvc_idle, settle_scm
from tfnas.jobs.artifacts import PROVENANCE, SNAKEMAKE_MARK, digest_text, git_trouble
from tfnas.jobs.errors import UserError

SYNCING = "TFNAS_SYNCING"  # tells the Snakefile that we call it, so that it does not call us
STATE = Path(".snakemake")
PRESENCE = STATE / "tfnas-present"
LOCKS = STATE / "locks"
LONG_AGO = 946684800.0  # 2000-01-01: older than any input
NAME_MAX = 254  # of a part of a record's name
SLACK_SECONDS = 5.0  # between the clocks of machines that share a disk
KUBERNETES_CLAIM = "TFNAS_CLAIM"  # set for profiles/kubernetes
WRITTEN = ("results", "logs", "checkpoints", ".snakemake")
_present: dict[Path, IO[str]] = {}  # open, so locked, until this process ends


def prepare_run(folder: Path) -> list[str]:
    """Refuse to start where a run would fail, and clean up after a killed one; returns lines for the user.

    Raises:
        UserError: DVC is at work; a folder cannot be written.
    """
    if SYNCING not in os.environ:
        check_dvc_idle(folder)
    check_writable(folder)
    settle_scm(folder)
    trouble = git_trouble(folder) if SYNCING not in os.environ else None
    lines = [trouble[0].upper() + trouble[1:] + "."] if trouble is not None else []
    lines += [
        f"{job} has a timestamp in the future (the clock has jumped); it gets an earlier one."
        for job in redate_future(folder)
    ]
    if enter(folder):
        jobs = cancel_cluster_jobs(folder)
        ended = f" and its jobs on the cluster are ended ({', '.join(jobs)})" if jobs else ""
        lines.append(f"An earlier run was killed: its lock is cleared{ended}. Its unfinished jobs resume.")
    return lines


def check_writable(folder: Path) -> None:
    """Check the folders that a run writes into, before any job starts.

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
    """Announce a Snakemake in this folder; clear the lock of a killed one, where no other one is alive.

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
        stale = alone and is_running(folder)
        if stale:
            shutil.rmtree(folder / LOCKS)
        fcntl.lockf(file, fcntl.LOCK_SH)  # waits for the moment in which another one looks, as above
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a network disk without locks
            raise
        return False
    return stale


def is_running(folder: Path) -> bool:
    """Whether there is a Snakemake lock in a folder: one runs there, or was killed there."""
    return (folder / LOCKS).is_dir() and any((folder / LOCKS).iterdir())


def _nobody_else(file: IO[str]) -> bool:
    """Try to take the lock exclusively."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def cancel_cluster_jobs(folder: Path) -> list[str]:
    """End the cluster jobs that a killed Snakemake submitted from this folder; they would collide with the next ones.

    The cluster is asked for the jobs, since Snakemake forgets their ids once they start.

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
    """What a cluster command prints; empty where it fails."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def redate_future(folder: Path) -> list[str]:
    """Give results with timestamps in the future that of the newest past result; call it before any job runs.

    Snakemake takes a result that is newer than its inputs as done, and one from the future (the clock has jumped) would
    be newer than every edit to come. Inputs that were changed since then are newer now, and Snakemake compares their
    digests with those it recorded.

    Returns:
        Folders of the jobs.
    """
    jobs = {path.parent: path.stat().st_mtime for path in _provenances(folder)}
    now = time.time() + SLACK_SECONDS
    future = [job for job, date in jobs.items() if date > now]
    if not future:
        return []
    dates = (path.stat().st_mtime for job in jobs if job not in future for path in _dated(job))
    date = max((date for date in dates if date <= now), default=LONG_AGO)
    for job in future:
        for path in _dated(job):
            os.utime(path, (date, date))
    return [str(job.relative_to(folder)) for job in future]


def _dated(job: Path) -> Iterator[Path]:
    """A job's outputs, and the marks by which Snakemake dates folders."""
    for path in job.iterdir():
        yield path
        if (mark := path / SNAKEMAKE_MARK).exists():
            yield mark


def _provenances(folder: Path) -> Iterator[Path]:
    """The file that each job writes last; found without walking through folders of images."""
    for depth in ("*", "*/*", "*/*/*"):
        yield from (folder / "results").glob(f"{depth}/{PROVENANCE}")


def snakemake(folder: Path, *options: str) -> str:
    """What Snakemake prints in a project folder.

    Raises:
        UserError: it fails; with the end of its own message.
    """
    programs = Path(sys.executable).parent
    path = os.pathsep.join((str(programs), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path, SYNCING: "1"}
    command = [str(programs / "snakemake"), *options]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()
        raise UserError(f"snakemake {options[0]} failed: {' '.join(line.strip() for line in lines[-3:])}")
    return finished.stdout


def replaced(folder: Path, outputs: Iterable[str]) -> set[str]:
    """The outputs that exist and are not as Snakemake left them; it cares for those of killed jobs itself."""
    return {
        output
        for output in outputs
        if os.path.lexists(folder / output)
        and _recorded_time(folder, output) != _time(folder / output)
        and not (folder / STATE / "incomplete" / _record_name(output)).exists()
    }


def forget(folder: Path, output: str) -> None:
    """Remove the record of an output and date it before everything it depends on, so that its job runs again."""
    (folder / STATE / "metadata" / _record_name(output)).unlink(missing_ok=True)
    for path in (folder / output, folder / output / SNAKEMAKE_MARK):
        if path.exists():
            os.utime(path, (LONG_AGO, LONG_AGO))


def _recorded_time(folder: Path, output: str) -> float | None:
    try:
        record = json.loads((folder / STATE / "metadata" / _record_name(output)).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or truncated when Snakemake was killed
        return None
    return record.get("endtime") if isinstance(record, dict) else None


def _record_name(output: str) -> Path:
    """Snakemake's name for an output's record: its path in base64, cut into folders where it is long."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + NAME_MAX] for start in range(0, len(name), NAME_MAX)]
    return Path(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _time(path: Path) -> float:
    """Modification time as Snakemake sees it: a folder's is that of its mark, unless its contents changed later."""
    own = path.lstat().st_mtime
    mark = path / SNAKEMAKE_MARK
    if not mark.is_file():
        return own
    marked = mark.stat().st_mtime
    return marked if own <= marked else own
