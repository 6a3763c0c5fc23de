"""The CSV files of this room: written atomically, read with an error that names file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tfnas.runtime.artifacts import atomic_path
from tfnas.runtime.errors import UserError


def write_table(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_table(path: str | Path, columns: Sequence[str], *, stage: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each row below the header.

    Args:
        columns: what the header must be.
        stage: the stage that writes such a file.

    Raises:
        UserError: missing, no text, another header, or a row with more or fewer cells.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if next(reader, None) != list(columns):
                raise UserError(f"{path}: line 1 is not {','.join(columns)}; pass the file that {stage} wrote")
            for cells in reader:
                if len(cells) != len(columns):
                    raise UserError(
                        f"{path}: line {reader.line_num} has {len(cells)} cells, expected {len(columns)}"
                        f" ({','.join(columns)}); run {stage} again"
                    )
                yield reader.line_num, cells
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run {stage}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a CSV file ({error}); run {stage} again") from None


def whole_number(cell: str, where: str) -> int:
    """The number from 0 in a cell.

    Raises:
        UserError: anything else; `where` names file, line and column.
    """
    if not (cell.isascii() and cell.isdigit()):
        raise UserError(f"{where}: {cell!r} is not a whole number from 0")
    return int(cell)


def image_path(cell: str, where: str) -> str:
    """The path of an image, relative to the folder of the images.

    Raises:
        UserError: empty, absolute, or leading out of that folder.
    """
    if not cell or cell[0] == "/" or (".." in cell and ".." in cell.split("/")):
        raise UserError(f"{where}: path {cell!r} is not within the folder of the images")
    return cell
