"""The measurements made so far, in a file: a profile that was killed goes on from there."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfnas.latency.table import OperationKey
from tfnas.latency.tours import Point, Visit

logger = logging.getLogger("tfnas.latency")


class Journal:
    """Visits, one a line of JSON, under a first line that says what they are measurements of.

    Args:
        path: None keeps nothing on disk.
        measured: what must be the same for old measurements to count (device, batch, versions...).
    """

    def __init__(self, path: Path | None, measured: Mapping[str, Any]) -> None:
        self._path, self._measured = path, json.loads(json.dumps(measured))
        self.visits: list[Visit] = self._read() if path is not None else []
        if self.visits:
            seconds = sum(visit.seconds for visit in self.visits)
            logger.info("goes on from %d tours (%.0f s) in %s", len(self.visits), seconds, path)

    def append(self, visit: Visit) -> None:
        """Keep a visit; it is on disk when this returns, as far as the operating system goes."""
        self.visits.append(visit)
        if self._path is not None:
            if len(self.visits) == 1:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(json.dumps(self._measured) + "\n")
            with self._path.open("a") as file:
                file.write(json.dumps(_to_plain(visit)) + "\n")

    def discard(self) -> None:
        """Remove the file: its measurements are in a table now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> list[Visit]:
        """All whole lines; a last line that was cut off is cut from the file, too."""
        assert self._path is not None
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]
        lines = whole.splitlines()
        try:
            if not lines or json.loads(lines[0]) != self._measured:
                logger.info("%s holds measurements of something else; measured anew", self._path)
                return []
            visits = [_from_plain(json.loads(line)) for line in lines[1:]]
        except (ValueError, TypeError, KeyError):
            logger.warning("%s is damaged; measured anew", self._path)
            return []
        if whole != text:
            self._path.write_text(whole)
        return visits


def _to_plain(visit: Visit) -> dict[str, Any]:
    points = [[list(key) if isinstance(key, OperationKey) else key, number] for key, number in visit.points]
    return {**visit._asdict(), "points": points}


def _from_plain(plain: dict[str, Any]) -> Visit:
    points: list[Point] = [
        (OperationKey(*key) if isinstance(key, list) else key, number) for key, number in plain["points"]
    ]
    return Visit(tuple(points), tuple(plain["latencies_ms"]), plain["cpu_share"], plain["seconds"])
