"""What a tracking store has not taken: tried again later in the job, and by the jobs after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfnas.runtime.artifacts import read_json, write_json

FOLDER = Path("mlflow-unsent")  # of the working directory, one file a run
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 600.0  # between two tries, so that an outage costs little time

logger = logging.getLogger("tfnas.tracking")


@dataclass(frozen=True)
class Entry:
    """Metrics with the time and step they belong to; or a file; or how the run ended."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    milliseconds: int = 0  # since 1970
    artifact: str | None = None
    status: str | None = None


class Outbox:
    """Entries of one run in order. Each goes to the store at once, or waits until the store takes entries again.

    Args:
        send: hands one entry to the store, or raises an error of `failures`.
    """

    def __init__(self, run_id: str, send: Callable[[str, Entry], None], failures: tuple[type[Exception], ...]) -> None:
        self._run_id, self._send, self._failures = run_id, send, failures
        self._waiting: list[Entry] = []
        self._pause, self._next_try = FIRST_PAUSE_SECONDS, 0.0

    def put(self, entry: Entry) -> None:
        self._waiting.append(entry)
        if time.monotonic() >= self._next_try:
            self.flush()

    def flush(self) -> bool:
        """Send what waits; whether the store has taken all."""
        try:
            while self._waiting:
                self._send(self._run_id, self._waiting[0])
                del self._waiting[0]
        except self._failures as error:
            reason = " ".join(str(error).split())[:200]
            logger.warning("MLflow did not take %d entries (%s); the job goes on", len(self._waiting), reason)
            self._next_try = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            return False
        self._pause, self._next_try = FIRST_PAUSE_SECONDS, 0.0
        return True

    def close(self) -> None:
        """Keep what waits in a file, for `send_kept`; where the disk takes no file either, say so."""
        if not self._waiting:
            return
        path = FOLDER / f"{self._run_id}.json"
        try:
            _write(path, [*(_read(path) if path.exists() else []), *self._waiting])
        except OSError as error:
            logger.warning("%s: %d entries are lost (%s)", path, len(self._waiting), error.strerror)
        else:
            logger.warning("%s: keeps what MLflow did not take; the next job sends it", path)


def send_kept(send: Callable[[str, Entry], None], failures: tuple[type[Exception], ...]) -> None:
    """Send what earlier jobs could not, until the store fails. Of jobs that start together only one may do so."""
    for path in sorted(FOLDER.glob("*.json")):
        waiting = _read(path)
        try:
            while waiting:
                send(path.stem, waiting[0])
                del waiting[0]
        except failures as error:
            logger.warning("%s: not sent (%s)", path, " ".join(str(error).split())[:200])
            _write(path, waiting)
            return
        path.unlink()
        logger.info("%s: sent to MLflow", path)


def _write(path: Path, entries: list[Entry]) -> None:
    write_json(path, {"kind": "unsent", "format_version": 1, "entries": [vars(entry) for entry in entries]})


def _read(path: Path) -> list[Entry]:
    entries: list[dict[str, Any]] = read_json(path, kind="unsent", version=1)["entries"]
    return [Entry(**entry) for entry in entries]
