"""Reading the authors' image lists: lines like `n01560419/n01560419_100.JPEG 0`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tfnas.jobs.errors import UserError


def read_image_list(path: str | Path) -> list[tuple[str, int]]:
    """(path relative to the image folder, label) of each line, in order; blank lines do not count.

    Raises:
        UserError: missing or empty file; a line without a label, with a label that is not a whole number
            from 0, or with a path that leaves the image folder. The line's number is named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); pass an image list of the authors") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; pass an image list of the authors") from None
    images = [_parse(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not images:
        raise UserError(f"{path}: is empty; expected lines like 'n01560419/n01560419_100.JPEG 0'")
    return images


def to_samples(images: Iterable[tuple[str, int]], *, prefix: str, source: str) -> list[tuple[str, str, int]]:
    """(path, class, label) of each image, as in a subset's train.csv and val.csv.

    Args:
        images: of `read_image_list`.
        prefix: what goes before every path; their lists are relative to ImageNet's training folder.
        source: the list's name in errors.

    Raises:
        UserError: an image outside a folder (the class), or a class with two labels, or a label with two classes.
    """
    samples = []
    labels: dict[str, int] = {}
    classes: dict[int, str] = {}
    for name, label in images:
        class_name = PurePosixPath(name).parent.name
        if not class_name:
            raise UserError(f"{source}: {name!r} lies in no folder, which would name its class")
        if labels.setdefault(class_name, label) != label:
            raise UserError(f"{source}: class {class_name} has label {labels[class_name]} and label {label}")
        if classes.setdefault(label, class_name) != class_name:
            raise UserError(f"{source}: label {label} is class {classes[label]} and class {class_name}")
        samples.append((str(PurePosixPath(prefix) / name), class_name, label))
    return samples


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
