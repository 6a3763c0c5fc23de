"""Reading the authors' image lists: lines like `n01560419/n01560419_100.JPEG 0`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tfnas.runtime.errors import UserError


def read_image_list(path: str | Path) -> list[tuple[str, int]]:
    """(path relative to the image folder, label) of each line, in order; blank lines do not count.

    Raises:
        UserError: missing or empty file; a line without a label, with a label that is not a whole number
            from 0, or with a path that leaves the image folder. The line's number is named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); pass an image list of the authors") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; pass an image list of the authors") from None
    images = [_parse(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not images:
        raise UserError(f"{path}: is empty; expected lines like 'n01560419/n01560419_100.JPEG 0'")
    return images


def _parse(line: str, where: str) -> tuple[str, int]:
    name, _, label = line.strip().rpartition(" ")
    name = name.strip()
    if not name:
        raise UserError(f"{where}: {line.strip()!r} has no label; write 'path label'")
    if not (label.isascii() and label.isdigit()):
        raise UserError(f"{where}: label {label!r} is not a whole number from 0")
    image = PurePosixPath(name)
    if image.is_absolute() or ".." in image.parts:
        raise UserError(f"{where}: path {name!r} leaves the image folder; write it relative to the folder")
    return name, int(label)
