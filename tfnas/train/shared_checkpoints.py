"""The checkpoints of a job of several processes: the first reads and writes them for all."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from tfnas.compute import distributed
from tfnas.runtime.checkpoints import CheckpointFolder


class SharedCheckpoints:
    """A `CheckpointFolder` that the first process alone opens, so that they need not share a disk.

    Args:
        open_folder: called in the first process.
    """

    def __init__(self, open_folder: Callable[[], CheckpointFolder]) -> None:
        self._open = open_folder
        self._folder: CheckpointFolder | None = None

    def __enter__(self) -> SharedCheckpoints:
        if distributed.rank() == 0:
            self._folder = self._open().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.__exit__(kind, error, trace)

    def load(self) -> dict[str, Any] | None:
        """The first process's newest state, in each of them; None when there is none."""
        state = self._folder.load() if self._folder is not None else None
        return distributed.gather(state)[0]

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; in the first process only."""
        assert self._folder is not None
        self._folder.save(state)

    def discard(self) -> None:
        """Remove all checkpoints; in the first process only."""
        assert self._folder is not None
        self._folder.discard()
