"""What differs between two runs of the pipeline: two commits, read by DVC, or two runs that MLflow has."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.engines.dvc import open_project
from tfnas.jobs.artifacts import git_trouble
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from tfnas.tracking.store import TrackedJob

RUN_ID = re.compile(r"[0-9a-f]{32}")
WORKSPACE = "workspace"  # the folder as it is, in DVC's words
PIPELINE_ID = re.compile(r"[0-9a-f]{12}")


def read_side(folder: Path, name: str) -> Side:
    """The values of a git revision or DVC experiment, `workspace`, an MLflow run id or a pipeline id.

    Raises:
        UserError: it is none of these.
    """
    tries: list[Callable[[], Side | None]] = [lambda: _revision(folder, name)]
    if RUN_ID.fullmatch(name):
        tries.insert(0, lambda: _run(name))
    elif PIPELINE_ID.fullmatch(name):
        tries.append(lambda: _pipeline(name))
    for attempt in tries:
        if (side := attempt()) is not None:
            return side
    if (trouble := git_trouble(folder)) is not None:
        raise UserError(f"{name}: cannot be looked up: {trouble}")
    raise UserError(
        f"{name}: is no commit, branch, tag or DVC experiment of this project, nor the id of an MLflow run"
        " (32 characters) or its tag pipeline_id (12 characters)"
    )


def differences(a: Side, b: Side) -> list[Difference]:
    """Parameters first, then metrics, by name; of two pipelines, of the jobs that both have run.

    Raises:
        UserError: the sides are of different kinds, whose names do not agree.
    """
    if a.kind != b.kind:
        raise UserError(f"compare-runs: {a.kind} and {b.kind} name their values differently; name two of a kind")
    if a.jobs and b.jobs:
        common = {job.job for job in a.jobs} & {job.job for job in b.jobs}
        a, b = a.only(common), b.only(common)
    found = []
    for what, of_a, of_b in (("params", a.params, b.params), ("metrics", a.metrics, b.metrics)):
        for name in sorted({*of_a, *of_b}):
            if of_a.get(name) != of_b.get(name):
                found.append(Difference(what, name, of_a.get(name), of_b.get(name)))
    return found


@dataclass(frozen=True)
class Side:
    """One of the two: what it is, and its values by dotted names."""

    kind: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    missing: tuple[str, ...] = ()  # metrics files that DVC records but the cache lacks
    jobs: tuple[TrackedJob, ...] = ()  # of a pipeline id, whose values these are

    def only(self, names: Container[str]) -> Side:
        """The same, reduced to the values of some of its jobs."""
        jobs = tuple(job for job in self.jobs if job.job in names)
        params = {name: value for job in jobs for name, value in job.params.items()}
        metrics = {f"{job.job}.{name}": value for job in jobs for name, value in job.metrics.items()}
        return replace(self, params=params, metrics=metrics, jobs=jobs)


@dataclass(frozen=True)
class Difference:
    """A parameter or metric that differs, or that only one side has (None on the other)."""

    what: str  # params | metrics
    name: str
    a: Any
    b: Any

    @property
    def change(self) -> float | None:
        """b - a, of two numbers."""
        if isinstance(self.a, bool) or isinstance(self.b, bool):
            return None
        try:
            change = float(self.b) - float(self.a)
        except (TypeError, ValueError):
            return None
        return change if math.isfinite(change) else None


def _revision(folder: Path, name: str) -> Side | None:
    """By DVC's API, which reads a commit without checking it out; None when there is no such revision."""
    if name != WORKSPACE and git_trouble(folder) is not None:
        return None
    with open_project(folder) as project:
        values = project.values_at(None if name == WORKSPACE else name)
    if values is None:
        return None
    metrics = {
        f"{Path(file).parent.as_posix().removeprefix('results/')}.{key}": value
        for file, content in values.metrics.items()
        for key, value in _flat(content).items()
    }
    params = {key: value for content in values.params.values() for key, value in _flat(content).items()}
    return Side("a commit", params, metrics, tuple(values.missing))


def _run(run_id: str) -> Side:
    from tfnas.tracking.store import read_job

    job = read_job(run_id)
    return Side("an MLflow run", job.params, job.metrics)


def _pipeline(pipeline_id: str) -> Side | None:
    from tfnas.tracking.store import read_pipeline

    jobs = read_pipeline(pipeline_id)
    if not jobs:
        return None
    return Side("a pipeline id", {}, {}, jobs=tuple(jobs)).only([job.job for job in jobs])


def _flat(content: Any) -> dict[str, Any]:
    """Nested mappings and lists under dotted names; a list of plain values is one value."""
    flat: dict[str, Any] = {}
    pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
    for key, value in pairs:
        nested = isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(v, Mapping) for v in value))
        if nested:
            flat |= {f"{key}.{name}": inner for name, inner in _flat(value).items()}
        else:
            flat[str(key)] = value
    return flat
