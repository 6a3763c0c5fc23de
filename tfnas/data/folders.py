"""Whole folders written atomically, as `tfnas.runtime.artifacts` does for files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfnas.runtime.artifacts import flush_to_disk, write_text

NOTE = "README.txt"


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path` that takes its place when the block ends well, and is removed when not."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.sync()  # as atomic_path flushes its file, for all of them at once
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
        flush_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_note(path: str | Path, text: str) -> None:
    """A folder that holds nothing but a note, for a place that the engines expect."""
    with atomic_folder(path) as folder:
        write_text(folder / NOTE, text + "\n")
