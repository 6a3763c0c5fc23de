"""Where a result came from, according to the provenance.json of its job, and whether all of that still holds."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.engines.dvc import CHANGED, MISSING, SAME, DvcRecord, dvc_records
from tfnas.engines.trust import disagreements
from tfnas.jobs.artifacts import PROVENANCE, digest_file, git_trouble, read_json
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import flatten
from tfnas.stages.params import load_params, stage_params

CHECKED_OUT, KNOWN, UNKNOWN, NONE = "checked out", "in this repository", "not in this repository", "not recorded"
DIRTY = "-dirty"
FIELDS = ("stage", "created", "git_commit", "params", "inputs", "outputs", "device", "packages", "mlflow_run_id")


def lineage_of(file: Path) -> Lineage:
    """The lineage of one file, or of a folder that is an output.

    Raises:
        UserError: no job wrote it, or the record is damaged.
    """
    file = file.absolute()
    for folder in (file, *file.parents):
        record = folder / PROVENANCE
        if record.is_file():
            provenance = _read(record)
            home = record_root(provenance, folder)
            shown = str(file.relative_to(home) if file.is_relative_to(home) else file)
            names = [shown] if file == record else [n for n in provenance["outputs"] if file.is_relative_to(home / n)]
            if names:  # a record cannot hold its own digest
                return lineage_of_record(provenance, home, outputs=names, file=shown)
            break
    raise UserError(f"{file}: no job wrote it: no {PROVENANCE} in its folder or above it names it")


def lineage_of_run(run_id: str, folder: Path) -> Lineage | None:
    """The lineage of the job in a project's results that an MLflow run records; None where no job there has it."""
    for record in sorted((folder / "results").rglob(PROVENANCE)):
        provenance = _read(record)
        if provenance["mlflow_run_id"] == run_id:
            return lineage_of_record(provenance, folder.absolute())
    return None


def lineage_of_record(
    provenance: Mapping[str, Any], folder: Path, *, outputs: Sequence[str] | None = None, file: str | None = None
) -> Lineage:
    """What a provenance.json says, compared with the present contents of a project's folder.

    Args:
        outputs: those to compare; None for all of the job.
    """
    names = list(provenance["outputs"]) if outputs is None else list(outputs)
    job = _job(provenance)
    target = job[1] if len(job) > 1 else None
    return Lineage(
        file=file,
        folder=str(folder),
        job="/".join(job),
        stage=job[0],
        target=target,
        created=provenance["created"],
        commit=find_commit(provenance["git_commit"], folder),
        params=flatten(provenance["params"]),
        params_now=_params_now(provenance["params"], folder, job[0], target),
        inputs=_trace(provenance["inputs"], folder),
        outputs=_trace({name: provenance["outputs"][name] for name in names if name in provenance["outputs"]}, folder),
        dvc=dvc_records(folder, [folder / name for name in names]),
        device=provenance["device"],
        packages=provenance["packages"],
        mlflow_run_id=provenance["mlflow_run_id"],
        stale=_stale(provenance, folder),
    )


@dataclass(frozen=True)
class Lineage:
    """How a job was run and what it wrote."""

    file: str | None  # the one that was asked for; None for all of a job
    folder: str  # of the project; all names are relative to it
    job: str  # stage, target and data set, e.g. `transfer/A/cifar10`
    stage: str
    target: str | None
    created: str
    commit: Commit
    params: dict[str, Any]  # of the stage, under dotted names
    params_now: dict[str, Any] | None  # those that differ now; None where params.yaml does not have this job
    inputs: tuple[Traced, ...]
    outputs: tuple[Traced, ...]  # the file asked for, or all of the job
    dvc: tuple[DvcRecord, ...]  # one per output
    device: str
    packages: dict[str, str]
    mlflow_run_id: str | None
    stale: dict[str, str]  # this job and its ancestors: why they do not match today's parameters, code and inputs


@dataclass(frozen=True)
class Traced:
    """A file or folder with its recorded digest (SHA-256), and whether it still has it."""

    path: str
    digest: str
    state: str  # same, changed or missing


def record_root(provenance: Mapping[str, Any], folder: Path) -> Path:
    """The folder that the names in a record are relative to, given the folder that the record is in.

    That is the project's folder, even after a move; the working directory where only results were moved.
    """
    parts = _place(provenance).parts
    if parts and folder.parts[-len(parts) :] == parts:
        return Path(*folder.parts[: -len(parts)])
    return Path.cwd()


def _read(record: Path) -> dict[str, Any]:
    provenance = read_json(record, kind="provenance", version=1)
    missing = [name for name in FIELDS if name not in provenance]
    if missing:
        raise UserError(f"{record}: has no {missing[0]!r}; run the stage that writes it again")
    return provenance


def _place(provenance: Mapping[str, Any]) -> Path:
    """The folder that a job wrote into, as it was given."""
    return Path(next(iter(provenance["outputs"]), PROVENANCE)).parent


def _job(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Stage, target and data set; the last two are recorded only in the name of the folder."""
    stage, parts = str(provenance["stage"]), _place(provenance).parts
    return parts[len(parts) - 1 - parts[::-1].index(stage) :] if stage in parts else (stage,)


@dataclass(frozen=True)
class Commit:
    """A commit that a job ran from; `dirty`: with changes that no commit holds."""

    id: str
    dirty: bool
    state: str  # CHECKED_OUT, ..., or why git cannot be asked


def find_commit(recorded: str, folder: Path) -> Commit:
    """What has become of a recorded commit in the repository of a folder."""
    commit, dirty = recorded.removesuffix(DIRTY), recorded.endswith(DIRTY)
    if not commit or commit == "unknown":
        return Commit("", dirty, NONE)
    if (trouble := git_trouble(folder)) is not None:
        return Commit(commit, dirty, trouble)
    if _git(folder, "rev-parse", "HEAD") == commit:
        return Commit(commit, dirty, CHECKED_OUT)
    found = _git(folder, "rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}")
    return Commit(commit, dirty, KNOWN if found == commit else UNKNOWN)


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; empty where it fails or is not installed."""
    try:
        finished = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:
        return ""
    return finished.stdout.strip() if finished.returncode == 0 else ""


def _trace(digests: Mapping[str, str], folder: Path) -> tuple[Traced, ...]:
    return tuple(Traced(name, digest, _state(folder / name, digest)) for name, digest in digests.items())


def _state(path: Path, digest: str) -> str:
    if not path.exists():
        return MISSING
    return SAME if digest_file(path) == digest else CHANGED


def _stale(provenance: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """What an engine that was told otherwise would hide; empty where params.yaml cannot be read."""
    records = [path.relative_to(folder) for path in (folder / "results").rglob(PROVENANCE)]
    try:
        reasons = disagreements(folder, map(str, records))
    except UserError:
        return {}
    makers, inputs = dict[str, str](), dict[str, list[str]]()
    for record in records:
        job = "/".join(record.parts[1:-1])
        content = read_json(folder / record)
        makers |= dict.fromkeys(content.get("outputs", {}), job)
        inputs[job] = list(content.get("inputs", {}))
    wanted, found = ["/".join(_job(provenance))], dict[str, str]()
    while wanted:
        job = wanted.pop()
        found |= {job: reasons[job]} if job in reasons else {}
        wanted += [makers[path] for path in inputs.pop(job, []) if path in makers]
    return found


def _params_now(params: Mapping[str, Any], folder: Path, stage: str, target: str | None) -> dict[str, Any] | None:
    """The stage's values in params.yaml that differ from the recorded ones."""
    try:
        now = flatten(stage_params(load_params(folder / "params.yaml"), stage, target))
    except (UserError, KeyError):  # no such file, one that this version rejects, or no such target in it
        return None
    then = flatten(params)
    return {key: now.get(key) for key in {**then, **now} if then.get(key) != now.get(key)}
