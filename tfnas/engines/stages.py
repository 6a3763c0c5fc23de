"""What a stage's results depend on besides its input files: code and parameters."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfnas.runtime.params import stage_params
from tfnas.runtime.schema import Params

LIBRARY = "tfnas"
IGNORED = ("__pycache__",)  # as .dvcignore


def code_files(root: Path, rooms: Iterable[str]) -> list[str]:
    """Every file of rooms of the library, relative to the working directory.

    dvc.yaml names the same rooms as folders.
    """
    return [os.path.relpath(path) for room in rooms for path in room_files(root / LIBRARY / room)]


def room_files(room: Path) -> Iterator[Path]:
    """The files of a sub-package in order, compiled ones left out."""
    for path in sorted(room.rglob("*")):
        if path.is_file() and not set(IGNORED) & set(path.parts):
            yield path


def values_as_text(params: Params, stage: str, target: str | None) -> str:
    """The values that a stage depends on; Snakemake re-runs a job when this text changes.

    They are the validated ones, so that two spellings of a number (`3` and `3.0`) are one value, as for DVC.
    """
    return json.dumps(stage_params(params, stage, target), sort_keys=True)
