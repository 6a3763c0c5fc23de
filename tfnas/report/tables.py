"""CSV files as typed rows, with mistakes named by file, line and column."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfnas.runtime.errors import UserError

Row = dict[str, Any]


def read_table(
    path: Path, *, texts: Sequence[str] = (), numbers: Sequence[str] = (), may_be_empty: bool = False
) -> list[Row]:
    """The rows of a CSV file with a header.

    Args:
        texts: columns that must be there and stay text.
        numbers: columns that must be there and hold numbers. Every other column becomes a number where it holds
            one, None where it is empty, and stays text otherwise.
        may_be_empty: a header without rows is no mistake.

    Raises:
        UserError: missing file, no rows, a missing column, a value that is no finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            raw, columns = list(reader), reader.fieldnames or ()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV file ({error}); run the stage that writes it again") from None
    if not raw and not may_be_empty:
        raise UserError(f"{path}: has no rows; run the stage that writes it again")
    missing = [name for name in (*texts, *numbers) if name not in columns]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]!r}; run the stage that writes it again")
    rows = []
    for line, cells in enumerate(raw, start=2):
        if None in cells or None in cells.values():
            raise UserError(f"{path}: line {line} has not as many cells as the header; run the stage again")
        row = {name: cell if name in texts else _value(cell) for name, cell in cells.items()}
        for name in numbers:
            value = row[name]
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"{path}: line {line}: {name}: expected a number, got {cells[name]!r}")
        rows.append(row)
    return rows


def _value(cell: str) -> int | float | str | None:
    if cell == "":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
