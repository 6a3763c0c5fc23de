"""The results of the commit that is checked out, from the DVC cache, known to both engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfnas.engines.dvc_lock import LOCK
from tfnas.engines.dvc_project import open_project
from tfnas.engines.sync import check_project, sync
from tfnas.runtime.errors import UserError


@dataclass(frozen=True)
class Restored:
    """The stages that are up to date now, those that would run, and what the cache lacks."""

    done: tuple[str, ...]
    stale: tuple[str, ...]
    missing: tuple[str, ...]  # outputs that dvc.lock records


def restore(folder: Path, *, force: bool = False) -> Restored:
    """Put the results that dvc.lock records in place (`dvc checkout`), and let the engines agree on them.

    Raises:
        UserError: no project or no dvc.lock; or results that DVC has not saved would be replaced, without `force`.
    """
    check_project(folder)
    if not (folder / LOCK).exists():
        raise UserError(
            f"{folder / LOCK}: is missing, so this commit records no results; `make run` makes them, and git keeps"
            f" {LOCK} for later: git add {LOCK} params.yaml"
        )
    with open_project(folder) as project:
        missing = project.checkout(force=force)
    sync(folder)
    with open_project(folder) as project:
        names, stale = project.outputs(), project.stale()
    done = tuple(name for name in names if name not in stale)
    return Restored(done, tuple(name for name in names if name in stale), tuple(missing))
