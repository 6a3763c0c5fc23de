"""What the commands share: checks of their options (writable paths, numbers not too small), and tables as printed."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PosixPath

from tfnas.jobs.errors import UserError


class OutputFile(PosixPath):
    """The type of an option that names a file to write; `check_outputs` checks it before the command starts."""


class OutputFolder(PosixPath):
    """The type of an option that names a folder to write into."""


def check_outputs(options: argparse.Namespace, command: str) -> None:
    """Check every path that a command is going to write.

    Raises:
        UserError: a path cannot be written, or another option names it too.
    """
    seen: dict[str, str] = {}
    for name, value in vars(options).items():
        if isinstance(value, str | Path) and not isinstance(value, OutputFile | OutputFolder) and _is_file(value):
            seen[os.path.realpath(value)] = name
    for name, path in vars(options).items():
        if not isinstance(path, OutputFile | OutputFolder):
            continue
        reason = _why_unwritable(path)
        other = seen.setdefault(os.path.realpath(path), name)
        if reason is None and other != name and isinstance(path, OutputFile):
            reason = f"is what {other.replace('_', '-')} names as well; name another file"
        if reason is not None:
            raise UserError(f"{command}: --{name.replace('_', '-')} {path}: {reason}")


def _why_unwritable(path: OutputFile | OutputFolder) -> str | None:
    """Why a path cannot be written, and what to do; None if it can."""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # from Python 3.14 on `exists` keeps all other errors to itself, as that a name is too long
        if isinstance(path, OutputFolder) and path.exists() and not path.is_dir():
            return "is a file; name a folder"
        if isinstance(path, OutputFile) and path.is_dir():
            return "is a folder; name a file"
        if isinstance(path, OutputFile) and path.exists() and not path.is_file():
            return "is a device or a pipe; name a file"
        place: Path = path if isinstance(path, OutputFolder) else path.parent
        while not place.exists():  # missing folders are created
            place = place.parent
        if not place.is_dir():
            return f"lies below {place}, which is a file; name another one"
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return f"cannot be written ({error.strerror}); name another place or change its permissions"


def _is_file(name: str | Path) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # too long for a file name
        return False


def check_numbers(options: argparse.Namespace, command: str, lowest: Mapping[str, int]) -> None:
    """Raise UserError for a number below its lowest value; None was not given."""
    for name, low in lowest.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise UserError(f"{command}: --{name.replace('_', '-')} {value}: must be {low} or more")


def layout(rows: Sequence[Sequence[str]], *, left: set[int]) -> str:
    """Columns two spaces apart, right-aligned except for those in `left`, with a rule below the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
