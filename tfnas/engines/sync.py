"""Telling either engine what the other has done, without running anything again.

Snakemake's word counts where dvc.lock has not moved since the last sync, DVC's where it has.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.engines.dvc_lock import lock_has_moved, remember_lock
from tfnas.engines.guard import SYNCING
from tfnas.runtime.errors import UserError

LONG_AGO = 946684800  # 2000-01-01: older than any input


@dataclass(frozen=True)
class Synced:
    """What a sync did: which engine was told, and the stages that it now takes as done, or as stale."""

    told: str
    done: tuple[str, ...]
    stale: tuple[str, ...]


def sync(folder: Path) -> Synced:
    """Bring the engine that has not run up to date with the one that has, in a project folder.

    Raises:
        UserError: no project folder, or an engine refuses (its own message is passed on).
    """
    for name in ("Snakefile", "dvc.yaml", "params.yaml"):
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: is missing; run `tfnas sync` in the project's folder")
    synced = _tell_snakemake(folder) if lock_has_moved(folder) else _tell_dvc(folder)
    remember_lock(folder)
    return synced


def _tell_dvc(folder: Path) -> Synced:
    """Commit, without running, every stage whose outputs Snakemake calls up to date."""
    fresh = _fresh_outputs(folder)
    outputs = {name: set(paths) for name, paths in _stage_outputs(folder).items()}
    done = tuple(name for name, paths in outputs.items() if paths <= fresh)
    if done:
        _call([*_tool("dvc"), "commit", "--force", "--quiet", *done], folder)
    return Synced("DVC", done, tuple(name for name in outputs if name not in done))


def _fresh_outputs(folder: Path) -> set[str]:
    """Files that `snakemake --summary` finds present and in no need of an update."""
    table = _call([*_tool("snakemake"), "--summary", "--quiet", "all"], folder)
    start = table.index("output_file\t")
    rows = csv.DictReader(table[start:].splitlines(), delimiter="\t")
    return {row["output_file"] for row in rows if (row["status"], row["plan"]) == ("ok", "no update")}


def _tell_snakemake(folder: Path) -> Synced:
    """Make Snakemake's records those of what DVC calls up to date; everything else is made to run again."""
    stale = _stale_stages(folder)
    outputs = _stage_outputs(folder)
    done = tuple(name for name in outputs if name not in stale)
    kept = [path for name in done for path in outputs[name]]
    if kept:
        _call([*_tool("snakemake"), "--touch", "--forceall", "--cores", "1", "--quiet", "all", "--", *kept], folder)
    _forget(folder, [path for name in stale for path in outputs[name] if (folder / path).exists()])
    return Synced("Snakemake", done, tuple(name for name in outputs if name in stale))


def _forget(folder: Path, outputs: Sequence[str]) -> None:
    """Let Snakemake see stale outputs as older than their inputs, with no record that says otherwise."""
    if not outputs:
        return
    cleanup = [*_tool("snakemake"), "--cores", "1", "--quiet", "all", "--cleanup-metadata", *outputs]
    subprocess.run(cleanup, cwd=folder, env=_environment(), capture_output=True)  # fails where there was no record
    for path in outputs:
        os.utime(folder / path, (LONG_AGO, LONG_AGO))


def _stage_outputs(folder: Path) -> dict[str, list[str]]:
    """Every DVC stage with the files that it writes, relative to the folder, in the order of dvc.yaml."""
    with _dvc(folder) as repo:
        return {stage.name: [_relative(out.fs_path, folder) for out in stage.outs] for stage in repo.index.stages}


def _stale_stages(folder: Path) -> set[str]:
    """Stages that DVC calls changed, and all that depend on them."""
    with _dvc(folder) as repo:
        changed = set(repo.status())  # by their address, which depends on the working directory
        graph = repo.index.graph  # from a stage to those that it depends on
        return {
            stage.name
            for stage in repo.index.stages
            if any(other.addressing in changed for other in _upstream(graph, stage))
        }


def _upstream(graph: Any, stage: Any) -> Iterable[Any]:
    import networkx

    return {stage, *networkx.descendants(graph, stage)}


def _dvc(folder: Path) -> Any:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        return Repo(str(folder))
    except DvcException as error:
        raise UserError(f"{folder}: DVC cannot open the project ({error})") from None


def _relative(path: str, folder: Path) -> str:
    return os.path.relpath(path, folder.resolve())


def _tool(name: str) -> list[str]:
    """A command of the environment that runs this Python, activated or not."""
    return [str(Path(sys.executable).parent / name)]


def _environment() -> dict[str, str]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**os.environ, "PATH": path, SYNCING: "1", "DVC_NO_ANALYTICS": "1"}


def _call(command: Sequence[str], folder: Path) -> str:
    finished = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()
        raise UserError(f"{Path(command[0]).name} {command[1]} failed: {' '.join(lines[-3:])}")
    return finished.stdout
