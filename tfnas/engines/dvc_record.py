"""What DVC has recorded of a result, and whether it is still so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.runtime.errors import UserError

SAME, CHANGED, MISSING = "same", "changed", "missing"
NOT_RECORDED, NO_PROJECT = "not recorded", "no DVC project"


@dataclass(frozen=True)
class DvcRecord:
    """The DVC stage that writes a file, the digest in dvc.lock, and whether the file is still that."""

    stage: str | None
    md5: str | None
    state: str  # one of those above
    cached: bool = False  # `dvc checkout` brings the recorded one back without a remote


def dvc_records(folder: Path, paths: Sequence[Path]) -> tuple[DvcRecord, ...]:
    """What dvc.lock says of each file, or of the output folder that it lies in.

    Raises:
        UserError: DVC cannot read the project's files.
    """
    nothing = tuple(DvcRecord(None, None, NO_PROJECT) for _ in paths)
    if not (folder / "dvc.yaml").exists():
        return nothing
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(folder)) as repo:
            outs = [(stage.name, out) for stage in repo.index.stages for out in stage.outs]
            return tuple(_find(outs, path.absolute()) for path in paths)
    except NotDvcRepoError:
        return nothing
    except DvcException as error:
        raise UserError(f"{folder / 'dvc.yaml'}: DVC cannot read the project ({error})") from None


def _find(outs: Sequence[tuple[str, Any]], file: Path) -> DvcRecord:
    for stage, out in outs:
        if not file.is_relative_to(out.fs_path):
            continue
        if not out.hash_info:
            return DvcRecord(stage, None, NOT_RECORDED)
        missing = not Path(out.fs_path).exists()
        state = MISSING if missing else CHANGED if out.changed_checksum() else SAME
        return DvcRecord(stage, out.hash_info.value, state, cached=not out.changed_cache())
    return DvcRecord(None, None, NOT_RECORDED)
