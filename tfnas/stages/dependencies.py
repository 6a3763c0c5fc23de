"""What a stage's results depend on besides parameters and other stages' results: code, and files of the user."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from tfnas.jobs.artifacts import digest_file, digest_text
from tfnas.jobs.errors import UserError
from tfnas.stages.params import Params
from tfnas.stages.registry import INPUTS, NAMED_FILES, STAGES, NamedFile

IGNORED = ("__pycache__",)  # as .dvcignore


def path_named(params: Params, named: NamedFile) -> str | None:
    """The path in params.yaml; None where the value is no path."""
    value: object = params
    for part in named.key.split("."):
        value = getattr(value, part)
    if not isinstance(value, str) or value in ("imagenet", "fit"):  # of rank_classes.weights
        return None
    is_shipped = named.key == "space" and Path(value).suffix not in (".yaml", ".yml")
    return None if is_shipped else value


def check_named_files(params: Params, source: str | Path) -> None:
    """Both engines watch the folders of `inputs/` and nothing else, so an edit elsewhere would not be noticed.

    Raises:
        UserError: params.yaml names a file that lies elsewhere.
    """
    for named in NAMED_FILES:
        path = path_named(params, named)
        if path is None:
            continue
        folder = f"{INPUTS}/{named.folder}"
        if not Path(os.path.normpath(path)).is_relative_to(folder):
            wanted = f"{named.key}: {folder}/{Path(path).name}"
            there = f"cp {shlex.quote(path)} {folder}/" if Path(path).exists() else "no such file; put it there"
            raise UserError(
                f"{source}: {named.key}: {path!r} lies outside {folder}/, where an edit of it would not be noticed:"
                f" {there} and write {wanted}"
            )


def named_files(params: Params, stage: str) -> list[Path]:
    """The user's own files that a stage reads under these parameters."""
    found = (path_named(params, named) for named in NAMED_FILES if stage in named.stages)
    return [Path(path) for path in found if path is not None]


def files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder in order, compiled ones left out."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not set(IGNORED) & set(path.parts):
            yield path


def digest_code(root: Path, stage: str) -> dict[str, str]:
    """Digest of each file and room of code that a stage depends on, in a checkout of the project."""
    paths = (Path(path) for path in STAGES[stage].code_paths)
    return {path.as_posix(): _digest(root / path) for path in paths if (root / path).exists()}


def _digest(path: Path) -> str:
    """Of a file, or of a room."""
    if path.is_file():
        return digest_file(path)
    return digest_text("\n".join(f"{file.relative_to(path)} {digest_file(file)}" for file in files_in(path)))
