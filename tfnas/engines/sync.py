"""Telling either engine what the other has done, without running anything again.

Of a file that is as Snakemake left it, Snakemake's word counts; of any other, and of all where dvc.lock has moved since
the last sync, DVC's. Neither counts against what the job itself has recorded (`disagreements`): both can be told by
hand that a file is up to date.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfnas.engines.calls import snakemake
from tfnas.engines.dvc_lock import lock_has_moved, remember_lock
from tfnas.engines.dvc_project import DvcProject, open_project
from tfnas.engines.records import forget, replaced
from tfnas.engines.stages import PROVENANCE, disagreements, job_of
from tfnas.runtime.errors import UserError


@dataclass(frozen=True)
class Synced:
    """What a sync did: which engine was told, and the stages that it now takes as done, or as stale.

    `refused` says of stages that an engine called up to date why they are not.
    """

    told: str
    done: tuple[str, ...]
    stale: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)


def sync(folder: Path) -> Synced:
    """Bring the engine that has not run up to date with the one that has, in a project folder.

    Raises:
        UserError: no project folder, or an engine refuses (its own message is passed on).
    """
    check_project(folder)
    with open_project(folder) as project:
        moved, synced = lock_has_moved(folder), catch_up(folder, project)
        if moved:
            return synced
        return _tell_dvc(folder, project)


def check_project(folder: Path) -> None:
    for name in ("Snakefile", "dvc.yaml", "params.yaml"):
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: is missing; this is done in the project's folder")


def is_in_step(folder: Path, outputs: Sequence[str]) -> bool:
    """Whether Snakemake's records are of the outputs that are there, and of this dvc.lock."""
    return not lock_has_moved(folder) and not replaced(folder, outputs)


def catch_up(folder: Path, project: DvcProject) -> Synced:
    """Tell Snakemake what DVC says of the outputs that are not as Snakemake left them; of all, where dvc.lock moved."""
    outputs = project.outputs()
    if lock_has_moved(folder):
        names = tuple(outputs)
    else:
        others = replaced(folder, [path for paths in outputs.values() for path in paths])
        names = tuple(name for name, paths in outputs.items() if others & set(paths))
    stale = project.stale() if names else set()
    refused = _refused(folder, {name: outputs[name] for name in names if name not in stale}, outputs)
    stale |= project.with_dependents(set(refused))
    done = tuple(name for name in names if name not in stale)
    if done:  # all that DVC calls up to date, or those that were left out would be older than what they depend on
        _touch(folder, project, [path for name in outputs if name not in stale for path in outputs[name]])
    for name in stale & set(names):
        for path in outputs[name]:
            forget(folder, path)
    remember_lock(folder)
    return Synced("Snakemake", done, tuple(name for name in names if name in stale), refused)


def forget_blessed(folder: Path, outputs: Sequence[str]) -> dict[str, str]:
    """Have jobs run again that Snakemake calls up to date and whose own records disagree, as after its `--touch`.

    Returns:
        Why, by job.
    """
    reasons = disagreements(folder, outputs)
    fresh = _fresh_outputs(folder) if reasons else set()
    blessed = {}
    for job, reason in reasons.items():
        own = [path for path in outputs if job_of([f"{Path(path).parent}/{PROVENANCE}"]) == job]
        if set(own) <= fresh:
            blessed[job] = reason
            for path in own:
                forget(folder, path)
    return blessed


def _refused(
    folder: Path, claimed: Mapping[str, Sequence[str]], outputs: Mapping[str, Sequence[str]], *, thorough: bool = False
) -> dict[str, str]:
    """Of the stages that an engine calls up to date those whose own records disagree, with the reason."""
    jobs = {job_of(paths): name for name, paths in claimed.items()}
    every = [path for paths in outputs.values() for path in paths]
    found = disagreements(folder, every, thorough=jobs if thorough else ()) if jobs else {}
    return {jobs[job]: reason for job, reason in found.items() if job in jobs}


def _touch(folder: Path, project: DvcProject, outputs: Sequence[str]) -> None:
    """Have Snakemake record outputs as they are now, each later than what it depends on."""
    snakemake(folder, "--touch", "--forceall", "--cores", "1", "--quiet", "all", "--no-hooks", "--", *outputs)
    project.note_links(project.outputs())


def _tell_dvc(folder: Path, project: DvcProject) -> Synced:
    """Commit, without running, every stage whose outputs Snakemake and the job's own record call up to date."""
    outputs, changed = project.outputs(), project.changed()
    if not changed:
        return Synced("DVC", tuple(outputs), ())
    fresh = _fresh_outputs(folder)
    claimed = {name: paths for name, paths in outputs.items() if set(paths) <= fresh}
    refused = _refused(folder, {name: claimed[name] for name in claimed if name in changed}, outputs, thorough=True)
    for name in refused:
        for path in outputs[name]:
            forget(folder, path)
    stale = project.with_dependents(set(refused))
    done = tuple(name for name in claimed if name not in stale)
    for name in (name for name in done if name in changed):
        project.commit(name)
        remember_lock(folder)  # after each: killed here, the next sync would take a moved dvc.lock for DVC's own run
    project.note_links(done)
    remember_lock(folder)
    return Synced("DVC", done, tuple(name for name in outputs if name not in done), refused)


def _fresh_outputs(folder: Path) -> set[str]:
    """Files that `snakemake --summary` finds present and in no need of an update."""
    table = snakemake(folder, "--summary", "--quiet", "all")
    rows = csv.DictReader(table[table.index("output_file\t") :].splitlines(), delimiter="\t")
    return {row["output_file"] for row in rows if (row["status"], row["plan"]) == ("ok", "no update")}
