"""What a stage's results depend on besides parameters and other stages' results: code, and files of the user."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tfnas.runtime.artifacts import digest_file, digest_text
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import Params

LIBRARY = "tfnas"
SCRIPTS = Path("workflow") / "scripts"
IGNORED = ("__pycache__",)  # as .dvcignore
INPUTS = "inputs"

# The rooms of the library whose code a stage's results depend on. dvc.yaml lists the same ones; a test compares them,
# and another one follows each script's imports.
STAGE_ROOMS: dict[str, tuple[str, ...]] = {
    "prepare_data": ("data", "compute"),
    "rank_classes": ("data", "compute"),
    "build_subset": ("data", "compute"),
    "profile_latency": ("authors", "latency", "space", "compute"),
    "warm_up": ("search", "data", "latency", "space", "compute"),
    "search": ("search", "data", "latency", "space", "compute"),
    "derive": ("search", "latency", "space", "compute"),
    "retrain": ("train", "data", "space", "compute"),
    "transfer": ("train", "data", "space", "compute"),
    "report": ("report", "latency", "space", "compute"),
}


class NamedFile(NamedTuple):
    """A parameter whose value may be the path of the user's own file, and the folder of `inputs/` for such files."""

    key: str
    folder: str
    stages: tuple[str, ...]  # that read the file

    def of(self, params: Params) -> str | None:
        """The path in params.yaml; None where the value is no path."""
        value: object = params
        for part in self.key.split("."):
            value = getattr(value, part)
        if not isinstance(value, str) or value in ("imagenet", "fit"):  # of rank_classes.weights
            return None
        is_shipped = self.key == "space" and Path(value).suffix not in (".yaml", ".yml")
        return None if is_shipped else value


NAMED_FILES = (
    NamedFile("space", "spaces", ("profile_latency", "warm_up", "search", "derive")),
    NamedFile("profile_latency.table", "tables", ("profile_latency",)),
    NamedFile("build_subset.class_list", "class_lists", ("build_subset",)),
    NamedFile("rank_classes.weights", "weights", ("rank_classes",)),
    NamedFile("report.comparison", "comparisons", ("report",)),
)


def check_named_files(params: Params, source: str | Path) -> None:
    """Both engines watch the folders of `inputs/` and nothing else, so an edit elsewhere would not be noticed.

    Raises:
        UserError: params.yaml names a file that lies elsewhere.
    """
    for named in NAMED_FILES:
        path = named.of(params)
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
    found = (named.of(params) for named in NAMED_FILES if stage in named.stages)
    return [Path(path) for path in found if path is not None]


def input_folders(stage: str) -> list[str]:
    """The folders of `inputs/` that a stage depends on, whether or not it reads a file of them today."""
    return [f"{INPUTS}/{named.folder}" for named in NAMED_FILES if stage in named.stages]


def files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder in order, compiled ones left out."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not set(IGNORED) & set(path.parts):
            yield path


def digest_code(root: Path, stage: str) -> dict[str, str]:
    """Digest of a stage's script and of each room that it depends on, in a checkout of the project."""
    script = SCRIPTS / f"{stage}.py"
    parts = [script] if (root / script).is_file() else []
    return {
        **{part.as_posix(): digest_file(root / part) for part in parts},
        **{f"{LIBRARY}/{room}": _digest_room(root / LIBRARY / room) for room in STAGE_ROOMS.get(stage, ())},
    }


def _digest_room(room: Path) -> str:
    return digest_text("\n".join(f"{path.relative_to(room)} {digest_file(path)}" for path in files_in(room)))
