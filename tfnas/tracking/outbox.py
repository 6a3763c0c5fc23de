"""Entries that the tracking store has not accepted yet: retried later in the job, and by the jobs after it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfnas.jobs.artifacts import atomic_path, read_json, write_json
from tfnas.jobs.errors import reason_of

FOLDER = "mlflow-unsent"  # of the project's folder; per run a file of entries, and a folder with copies of its files
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 600.0  # between two tries, so that an outage costs little time

logger = logging.getLogger("tfnas.tracking")


@dataclass(frozen=True)
class Entry:
    """Metrics with their time and step, a file, or the status with which the run ended."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    milliseconds: int = 0  # since 1970
    artifact: str | None = None  # a file; of a kept entry its copy, relative to the project's folder
    status: str | None = None


Send = Callable[[str, Entry], None]  # hands one entry of a run to the store, or raises what its libraries raise


class Outbox:
    """Entries of one run, in order. Each is sent at once, or waits until the store accepts entries again.

    A waiting file is copied, since the job's next attempt or Snakemake may remove it in the meantime.
    """

    def __init__(self, run_id: str, send: Send, folder: Path) -> None:
        self._run_id, self._send, self._folder = run_id, send, folder
        self._waiting: list[Entry] = []
        self._pause, self._next_try = FIRST_PAUSE_SECONDS, 0.0

    def put(self, entry: Entry) -> None:
        self._waiting.append(entry)
        if time.monotonic() >= self._next_try:
            self.flush()
        if self._waiting and entry.artifact is not None:
            del self._waiting[-1]
            self._keep(entry, Path(entry.artifact))

    def flush(self) -> bool:
        """Send what is waiting, and say whether the store accepted all of it."""
        try:
            while self._waiting:
                _send_or_miss(self._send, self._run_id, self._waiting[0], self._folder.parent)
                del self._waiting[0]
        except Exception as error:  # of any library that a store uses
            logger.warning("MLflow did not take %d entries (%s); the job goes on", len(self._waiting), reason_of(error))
            self._next_try = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            return False
        self._pause, self._next_try = FIRST_PAUSE_SECONDS, 0.0
        return True

    def close(self) -> None:
        """Keep what is waiting in a file for `send_kept`; if the disk fails as well, say so."""
        path = self._folder / f"{self._run_id}.json"
        if not self._waiting:
            if not path.exists():
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            return
        try:
            _write(path, [*(_read(path) if path.exists() else []), *self._waiting])
        except OSError as error:
            logger.warning("%s: %d entries are lost (%s)", path, len(self._waiting), error.strerror)
        else:
            logger.warning("%s/%s: keeps what MLflow did not take; the next job sends it", FOLDER, path.name)

    def _keep(self, entry: Entry, path: Path) -> None:
        """Queue a copy of a file, under the same name, which MLflow uses."""
        kept = self._folder / self._run_id / path.name
        try:
            with atomic_path(kept) as temporary:
                shutil.copyfile(path, temporary)
        except OSError as error:
            logger.warning("%s: MLflow stays without it, no copy can be kept (%s)", path, error.strerror)
        else:
            self._waiting.append(replace(entry, artifact=str(kept.relative_to(self._folder.parent))))


def send_kept(send: Send, folder: Path) -> None:
    """Send what earlier jobs could not; of jobs that start together, only one may call this.

    Where the store does not answer, everything else keeps waiting; a single run that the store refuses does not hold up
    the others.
    """
    for path in sorted(folder.glob("*.json")):
        waiting = _read(path)
        count, missing = len(waiting), 0
        try:
            while waiting:
                missing += not _send_or_miss(send, path.stem, waiting[0], folder.parent)
                del waiting[0]
        except Exception as error:  # of any library that a store uses
            logger.warning("%s/%s: not sent (%s); the next job tries again", FOLDER, path.name, reason_of(error))
            if len(waiting) < count:
                _write(path, waiting)
            if _is_of_this_run(error):
                continue
            return
        path.unlink()
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        logger.info("%s/%s: %d of %d entries sent to MLflow", FOLDER, path.name, count - missing, count)


def _send_or_miss(send: Send, run_id: str, entry: Entry, project: Path) -> bool:
    """Send an entry; False, with a warning, for a file that no longer exists."""
    if entry.artifact is not None:
        file = Path(entry.artifact) if Path(entry.artifact).exists() else project / entry.artifact
        if not file.exists():
            logger.warning("%s: is gone; run %s in MLflow stays without it", entry.artifact, run_id)
            return False
        entry = replace(entry, artifact=str(file))
    send(run_id, entry)
    return True


def _is_of_this_run(error: Exception) -> bool:
    """Whether a store refuses one run (deleted, or its location takes no files) and answers otherwise."""
    refused = getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
    return refused or (isinstance(error, OSError) and error.errno is not None)


def _write(path: Path, entries: list[Entry]) -> None:
    write_json(path, {"kind": "unsent", "format_version": 1, "entries": [vars(entry) for entry in entries]})


def _read(path: Path) -> list[Entry]:
    entries: list[dict[str, Any]] = read_json(path, kind="unsent", version=1)["entries"]
    return [Entry(**entry) for entry in entries]
