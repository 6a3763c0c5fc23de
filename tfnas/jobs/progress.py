"""A progress bar with remaining time on a terminal, plain lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tfnas.compute import distributed

Item = TypeVar("Item")
LOG_EVERY_SECONDS = 10.0

logger = logging.getLogger("tfnas.progress")


class ProgressBar:
    """A bar on a terminal, and a line in the log every ten seconds and at the end."""

    def __init__(self, label: str, total: float, unit: str) -> None:
        from tqdm import tqdm

        self._label, self._total, self._unit = label, total, unit
        self._done, self._start = 0.0, time.monotonic()
        self._last = self._start
        shown = "{l_bar}{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}]"
        silent = not sys.stderr.isatty() or distributed.rank() > 0
        self._bar = tqdm(desc=label, total=total, unit=unit, disable=silent, leave=False, bar_format=shown)

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        self._bar.update(amount)
        now = time.monotonic()
        if now - self._last >= LOG_EVERY_SECONDS or self._done >= self._total:
            self._last, so_far = now, now - self._start
            left = so_far / self._done * max(0.0, self._total - self._done)
            done = f"{self._done:.0f}/{self._total:.0f} {self._unit}s"
            logger.info("%s: %s, %.0f s so far, %.0f s left", self._label, done, so_far, left)

    def close(self) -> None:
        self._bar.close()


def announce(log: logging.Logger, line: str) -> None:
    """A line for the reader: in the log, and on the terminal as well."""
    log.warning("%s", line)
    if log.hasHandlers() and distributed.rank() == 0:  # without any, logging itself writes to the terminal
        print(f"warning: {line}", file=sys.stderr)


def track(items: Iterable[Item], *, label: str, total: int, unit: str = "step") -> Iterator[Item]:
    """Yield the items; show a bar on a terminal and log a line every ten seconds and at the end."""
    progress = ProgressBar(label, total, unit)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.close()
