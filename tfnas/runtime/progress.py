"""A progress bar with remaining time on a terminal, plain lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tfnas.runtime import distributed

Item = TypeVar("Item")
LOG_EVERY_SECONDS = 10.0

logger = logging.getLogger("tfnas.progress")


def track(items: Iterable[Item], *, label: str, total: int, unit: str = "step") -> Iterator[Item]:
    """Yield the items; show a bar on a terminal and log a line every ten seconds and at the end."""
    from tqdm import tqdm

    start = last = time.monotonic()
    silent = not sys.stderr.isatty() or distributed.rank() > 0
    bar = tqdm(items, desc=label, total=total, unit=unit, disable=silent, leave=False)
    for done, item in enumerate(bar, start=1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_EVERY_SECONDS or done == total:
            last = now
            left = (now - start) / done * (total - done)
            logger.info("%s: %d/%d %ss, %.0f s so far, %.0f s left", label, done, total, unit, now - start, left)
