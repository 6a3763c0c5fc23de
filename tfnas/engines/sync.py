"""Telling each engine what the other has done, without running anything; and what the Snakefile calls around a run.

For a file that is as Snakemake left it, Snakemake's word counts; for any other, and for all of them where dvc.lock has
changed since the last sync, DVC's. Neither counts against the job's own record (`disagreements`), since both can be
told by hand that a file is up to date.
"""

from __future__ import annotations

import atexit
import csv
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfnas.data.manifest import FOLDERS, describe_changed_images
from tfnas.engines.dvc import LOCK, DvcProject, let_dvc_in, lock_has_moved, open_project, remember_lock
from tfnas.engines.snakemake import SYNCING, forget, is_running, replaced, snakemake
from tfnas.engines.trust import disagreements, is_finer, job_of
from tfnas.jobs.artifacts import PROVENANCE
from tfnas.jobs.errors import UserError, redact
from tfnas.space import load_space
from tfnas.stages.params import Params, check_given_networks, check_named_files, load_params, spared_supernet

PARAMS_FILE = "params.yaml"


def sync(folder: Path) -> Synced:
    """Tell the engine that has not run about the work of the one that has, in a project folder.

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
            raise UserError(f"{folder / name}: is missing; run this in the project's folder")


@dataclass(frozen=True)
class Synced:
    """What a sync did: which engine was told, and the stages that it now takes as done or as stale.

    `refused` gives the reasons for stages that an engine called up to date but that are not.
    """

    told: str
    done: tuple[str, ...]
    stale: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)


def catch_up(folder: Path, project: DvcProject) -> Synced:
    """Tell Snakemake what DVC says about outputs that Snakemake did not leave so; about all, where dvc.lock moved."""
    outputs = project.outputs()
    if lock_has_moved(folder):
        names = tuple(outputs)
    else:
        others = replaced(folder, [path for paths in outputs.values() for path in paths])
        names = tuple(name for name, paths in outputs.items() if others & set(paths))
    stale = project.with_dependents(_changed(folder, project, outputs)) if names else set()
    refused = _refused(folder, {name: outputs[name] for name in names if name not in stale}, outputs)
    stale |= project.with_dependents(set(refused))
    done = tuple(name for name in names if name not in stale)
    if done:  # all that DVC calls up to date: the others would end up older than what they depend on
        _touch(folder, project, [path for name in outputs if name not in stale for path in outputs[name]])
    for name in stale & set(names):
        for path in outputs[name]:
            forget(folder, path)
    remember_lock(folder)
    return Synced("Snakemake", done, tuple(name for name in names if name in stale), refused)


def _changed(folder: Path, project: DvcProject, outputs: Mapping[str, Sequence[str]]) -> set[str]:
    """What DVC calls changed, but for jobs that depend on less than dvc.yaml says and whose own records agree."""
    params, changed = load_params(folder / PARAMS_FILE), project.changed()
    jobs = {job_of(outputs[name]): name for name in changed if all((folder / path).exists() for path in outputs[name])}
    finer = {job: name for job, name in jobs.items() if is_finer(params, *_stage_and_target(job))}
    every = [path for paths in outputs.values() for path in paths]
    found = disagreements(folder, every, thorough=finer) if finer else {}
    return changed - {name for job, name in finer.items() if job not in found}


def _stage_and_target(job: str) -> tuple[str, str | None]:
    stage, *rest = job.split("/")
    return stage, rest[0] if rest else None


def _tell_dvc(folder: Path, project: DvcProject) -> Synced:
    """Commit, without running, every stage that both Snakemake and the job's own record call up to date."""
    outputs, changed = project.outputs(), project.changed()
    if not changed:
        return Synced("DVC", tuple(outputs), ())
    fresh = _fresh_outputs(folder)
    complete = project.complete()
    claimed = {name: paths for name, paths in outputs.items() if set(paths) <= fresh and name in complete}
    refused = _refused(folder, {name: claimed[name] for name in claimed if name in changed}, outputs, thorough=True)
    for name in refused:
        for path in outputs[name]:
            forget(folder, path)
    stale = project.with_dependents(set(refused))
    done = tuple(name for name in claimed if name not in stale)
    for name in (name for name in done if name in changed):
        project.commit(name)
        remember_lock(folder)  # after each: after a kill, the next sync would take dvc.lock for a run of DVC
    project.note_links(done)
    remember_lock(folder)
    return Synced("DVC", done, tuple(name for name in outputs if name not in done), refused)


def _refused(
    folder: Path, claimed: Mapping[str, Sequence[str]], outputs: Mapping[str, Sequence[str]], *, thorough: bool = False
) -> dict[str, str]:
    """The stages that an engine calls up to date but whose own records disagree, with the reasons."""
    jobs = {job_of(paths): name for name, paths in claimed.items()}
    every = [path for paths in outputs.values() for path in paths]
    found = disagreements(folder, every, thorough=jobs if thorough else ()) if jobs else {}
    return {jobs[job]: reason for job, reason in found.items() if job in jobs}


def _touch(folder: Path, project: DvcProject, outputs: Sequence[str]) -> None:
    """Make Snakemake record outputs as they are now, each newer than what it depends on."""
    snakemake(folder, "--touch", "--forceall", "--cores", "1", "--quiet", "all", "--no-hooks", "--", *outputs)
    project.note_links(project.outputs())


def _fresh_outputs(folder: Path) -> set[str]:
    """Files that `snakemake --summary` calls present and up to date."""
    table = snakemake(folder, "--summary", "--quiet", "all")
    rows = csv.DictReader(table[table.index("output_file\t") :].splitlines(), delimiter="\t")
    return {row["output_file"] for row in rows if (row["status"], row["plan"]) == ("ok", "no update")}


def forget_touched(folder: Path, outputs: Sequence[str]) -> dict[str, str]:
    """Make jobs run again that Snakemake calls up to date but whose own records disagree, as after its `--touch`.

    Returns:
        The reasons, by job.
    """
    reasons = disagreements(folder, outputs)
    fresh = _fresh_outputs(folder) if reasons else set()
    touched = {}
    for job, reason in reasons.items():
        own = [path for path in outputs if job_of([f"{Path(path).parent}/{PROVENANCE}"]) == job]
        if set(own) <= fresh:
            touched[job] = reason
            for path in own:
                forget(folder, path)
    return touched


def is_in_step(folder: Path, outputs: Sequence[str]) -> bool:
    """Whether Snakemake's records match the present outputs and this dvc.lock."""
    return not lock_has_moved(folder) and not replaced(folder, outputs)


def restore(folder: Path, *, force: bool = False) -> Restored:
    """Put the results that dvc.lock records in place (`dvc checkout`), and make both engines know them.

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


@dataclass(frozen=True)
class Restored:
    """The stages that are up to date now, those that would run, and outputs missing from the cache."""

    done: tuple[str, ...]
    stale: tuple[str, ...]
    missing: tuple[str, ...]  # outputs that dvc.lock records


def check_place(*folders: Path) -> None:
    """Refuse folders whose names the underlying programs cannot handle.

    Snakemake reads braces as placeholders, `PATH` and `PYTHONPATH` are split at colons, and MLflow cannot make a
    database where the path of its own code has a percent sign.

    Raises:
        UserError: such a character in a path.
    """
    for folder, forbidden in (*((folder, "{}:") for folder in folders), (Path(sys.prefix), "%")):
        found = [character for character in forbidden if character in str(folder)]
        if found:
            raise UserError(f"{folder}: the pipeline cannot run where a path has {found[0]} in it; rename that folder")


def check_workdir_params() -> Params:
    """The working directory's params.yaml, completely checked, including its search space and the given networks.

    Raises:
        UserError: a mistake in the file.
    """
    params = load_params(PARAMS_FILE)
    check_named_files(params, PARAMS_FILE)
    check_given_networks(params)
    load_space(params.space)
    return params


def check_config(config: Mapping[str, Any]) -> None:
    """Compare Snakemake's `config` with params.yaml.

    Raises:
        UserError: they differ (--config, --configfile), which the scripts and DVC would not see.
    """
    from snakemake.common.configfile import load_configfile

    raw = load_configfile(PARAMS_FILE)
    for key in {*config, *raw}:
        if key not in raw or key not in config or config[key] != raw[key]:
            raise UserError(
                f"{PARAMS_FILE}: --config or --configfile changes {key!r} for Snakemake only, the scripts and DVC read"
                " the file; edit the file, or use `snakemake --directory DIR` with a params.yaml of its own in DIR"
            )


def learn_from_dvc(folder: Path, outputs: Sequence[str]) -> None:
    """Before the DAG is built: update Snakemake's records where DVC or a person has changed results.

    Not while another Snakemake is running there and still writing files.

    Raises:
        UserError: an engine refuses.
    """
    if SYNCING in os.environ or not (folder / ".dvc").is_dir():
        return
    in_step = is_in_step(folder, outputs)
    if is_running(folder):
        if not in_step:
            _say("another Snakemake runs in this folder: results are not compared with DVC's")
        return
    if not in_step:
        with open_project(folder) as project:
            synced = catch_up(folder, project)
        _say(_explain(synced))
        _say_refused(synced.refused)
    _say_refused(forget_touched(folder, outputs))


def say_changed_images(params: Params, folder: Path) -> None:
    """Before the DAG is built: say where listed images have changed, since no engine looks into `prepare_data.root`."""
    line = describe_changed_images(params.prepare_data.folder, folder / "results" / "prepare_data" / FOLDERS)
    if line is not None and SYNCING not in os.environ:
        _say(line)


def say_spared_supernet(params: Params) -> None:
    """Before the DAG is built: say where warm_up would train a supernet that no target needs."""
    line = spared_supernet(params)
    if line is not None and SYNCING not in os.environ:
        _say(line)


def tell_dvc(folder: Path) -> None:
    """After a run: commit to DVC what is up to date. A failure is only a line, since the run itself has succeeded."""
    if SYNCING in os.environ or not (folder / ".dvc").is_dir():
        return
    let_dvc_in()
    try:
        synced = sync(folder)
    except Exception as error:
        _say(f"DVC does not know of these results yet, `tfnas sync` tells it ({error})")
        return
    _say(f"{len(synced.done)} stages are up to date in DVC as well")
    _say_refused(synced.refused)


def _explain(synced: Synced) -> str:
    text = f"results changed outside Snakemake: DVC calls {len(synced.done)} stages up to date"
    if not synced.stale:
        return text
    return (
        f"{text}, {len(synced.stale)} stale; after a git checkout, `tfnas restore` brings back the results that"
        " dvc.lock records"
    )


def _say_refused(reasons: Mapping[str, str]) -> None:
    for job, reason in reasons.items():
        _say(f"{job} was called up to date and is not: {reason}; the next run of Snakemake makes it again")


def _say(line: str) -> None:
    print(f"tfnas: {redact(line)}", file=sys.stderr)


def repeat_errors(snakemake_logs: Sequence[str]) -> None:
    """Say again at exit why jobs failed: Snakemake buries a job's own message under thousands of characters."""
    text = "".join(Path(log).read_text(encoding="utf-8", errors="replace") for log in snakemake_logs)
    for line in reversed(failures(text)):  # the last one registered is printed first
        atexit.register(print, line, file=sys.stderr)


def failures(text: str) -> list[str]:
    """One line for each failed job in Snakemake's log: its own last error, and where its log is."""
    found = re.findall(r"^Error in rule (\w+):\n(?:    .*\n)*?    log: (\S+)", text, re.MULTILINE)
    return [f"error: {_last_error(Path(log))} ({rule}; log: {log})" for rule, log in dict.fromkeys(found)]


def _last_error(log: Path) -> str:
    """A job's last error; for a bug of ours, the last line of the traceback."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line.partition(" ERROR ")[2] for line in lines if " ERROR " in line]
    if not errors:
        return "the job ended without a message: it was killed, or memory ran out"
    return errors[-1] if errors[-1] != "failed" else next(line for line in reversed(lines) if line.strip())
