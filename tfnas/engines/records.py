"""Snakemake's records of its outputs: which files are still as it left them.

Snakemake 9.27, which pyproject.toml pins, keeps a JSON file for each output under `.snakemake/metadata`. Its `endtime`
is the output's modification time when its job ended or when it was touched. A file with another time has been written
since by something else: DVC, or a hand.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from pathlib import Path

from tfnas.runtime.artifacts import SNAKEMAKE_MARK

STATE = Path(".snakemake")
LONG_AGO = 946684800  # 2000-01-01: older than any input
NAME_MAX = 254  # of a part of a record's name


def is_running(folder: Path) -> bool:
    """Whether Snakemake holds its lock in a folder: it runs there, or was killed there."""
    locks = folder / STATE / "locks"
    return locks.is_dir() and any(locks.iterdir())


def replaced(folder: Path, outputs: Iterable[str]) -> set[str]:
    """The outputs that exist and are not as Snakemake left them; those of a job that was killed are its own affair."""
    return {
        output
        for output in outputs
        if os.path.lexists(folder / output)
        and _recorded_time(folder, output) != _time(folder / output)
        and not (folder / STATE / "incomplete" / _record_name(output)).exists()
    }


def forget(folder: Path, output: str) -> None:
    """Remove the record of an output and date it before all that it depends on, so that its job runs again."""
    (folder / STATE / "metadata" / _record_name(output)).unlink(missing_ok=True)
    for path in (folder / output, folder / output / SNAKEMAKE_MARK):
        if path.exists():
            os.utime(path, (LONG_AGO, LONG_AGO))


def _recorded_time(folder: Path, output: str) -> float | None:
    try:
        record = json.loads((folder / STATE / "metadata" / _record_name(output)).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or cut short when Snakemake was killed
        return None
    return record.get("endtime") if isinstance(record, dict) else None


def _record_name(output: str) -> Path:
    """Snakemake's name for an output's record: its path in base64, cut into folders where it is long."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + NAME_MAX] for start in range(0, len(name), NAME_MAX)]
    return Path(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _time(path: Path) -> float:
    """Modification time as Snakemake takes it: of a folder, its mark's, unless something was put into it later."""
    own = path.lstat().st_mtime
    mark = path / SNAKEMAKE_MARK
    if not mark.is_file():
        return own
    marked = mark.stat().st_mtime
    return marked if own <= marked else own
