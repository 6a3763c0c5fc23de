"""Work that goes on beside the program, one piece at a time: writing, which mostly waits for the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """One thread, which ends with this object. What a piece of work raised, the next call raises here, once."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tfnas-background")
        self._pending: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Wait for the last piece of work, and begin this one."""
        self.wait()
        self._pending = self._pool.submit(work)

    def wait(self) -> None:
        """Until the last piece of work is done."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
