"""Both pipeline files resolved to concrete jobs, for comparison.

Snakemake keeps state in its process, so its jobs are listed by another one. The list sits behind a private attribute
in 9.27, the version that constraints.txt pins.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.engines.forked import run_forked
from tfnas.stages.params import load_params

PLACEHOLDER = "inputs/architectures/.gitkeep"  # Snakemake lists the files of this folder that targets name, DVC all


@dataclass(frozen=True)
class ResolvedJob:
    """One job: what it runs, what it needs, what it writes, which parameter values it depends on."""

    command: str
    files: frozenset[str]  # inputs, folders of code and results as the files in them
    outputs: frozenset[str]
    params: str  # JSON


def dvc_jobs(folder: Path) -> dict[str, ResolvedJob]:
    """The stages of dvc.yaml, by name."""
    from dvc.dependency.param import ParamsDependency
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        stages = repo.index.stages
        declared = {_relative(out.fs_path, folder) for stage in stages for out in stage.outs}
        return {
            stage.name: ResolvedJob(
                command=" ".join(stage.cmd.split()),
                files=frozenset(
                    file
                    for dep in stage.deps
                    if not isinstance(dep, ParamsDependency)
                    for file in _files_of(_relative(dep.fs_path, folder), folder, declared)
                    if file != PLACEHOLDER
                ),
                outputs=frozenset(_relative(out.fs_path, folder) for out in stage.outs),
                params=_values(folder, [key for dep in stage.deps for key in getattr(dep, "params", [])]),
            )
            for stage in stages
        }


def snakemake_jobs(folder: Path) -> dict[str, ResolvedJob]:
    """The jobs of the Snakefile, by the name of their DVC stage."""
    with tempfile.NamedTemporaryFile("r") as file:
        code, said = run_forked(_list_snakemake_jobs, file.name, folder=folder, environment=os.environ)
        assert code == 0, said
        rows = json.load(file)
    jobs = {}
    for row in rows:
        jobs[row["name"]] = ResolvedJob(
            command=row["command"],
            files=frozenset(file for file in row["files"] if file != PLACEHOLDER),
            outputs=frozenset(row["outputs"]),
            params=json.dumps(json.loads(row["params"]), sort_keys=True),
        )
    return jobs


def differences(dvc: dict[str, ResolvedJob], snakemake: dict[str, ResolvedJob]) -> list[str]:
    """One line for each thing on which the two disagree."""
    lines = [f"{name}: only in one of the two" for name in sorted(set(dvc) ^ set(snakemake))]
    for name in sorted(set(dvc) & set(snakemake)):
        for part in ("command", "files", "outputs", "params"):
            ours, theirs = getattr(dvc[name], part), getattr(snakemake[name], part)
            if ours != theirs:
                shown = sorted(ours ^ theirs) if isinstance(ours, frozenset) else (ours, theirs)
                lines.append(f"{name}: {part} differ: {shown}")
    return lines


def _files_of(path: str, folder: Path, declared: set[str]) -> set[str]:
    """A declared output, or all of them in a results folder, or all files in a folder of code."""
    if path in declared:
        return {path}
    if path.startswith("results/"):
        return {output for output in declared if output.startswith(f"{path}/")}
    if (folder / path).is_dir():
        found = (file for file in (folder / path).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return {file.relative_to(folder).as_posix() for file in found}
    return {path}


def _values(folder: Path, keys: list[str]) -> str:
    params = load_params(folder / "params.yaml").model_dump(mode="json", by_alias=True)
    found = {}
    for key in keys:
        value: Any = params
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return json.dumps(found, sort_keys=True)


def _relative(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder.resolve()).as_posix()


def _list_snakemake_jobs(path: str) -> None:
    """Write the jobs of the working directory's Snakefile as JSON."""
    from snakemake.api import DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi
    from snakemake.settings.enums import Quietness

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api, contextlib.redirect_stdout(io.StringIO()):
        workflow = api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=Path("Snakefile"))
        workflow.dag(DAGSettings(forceall=True)).summary()
        jobs = [_plain(job) for job in workflow._workflow_store.dag.jobs if job.rule.name != "all"]
    Path(path).write_text(json.dumps(jobs))


def _plain(job: Any) -> dict[str, Any]:
    name = "@".join(part for part in (job.rule.name, "-".join(job.wildcards)) if part)
    return {
        "name": name,
        "command": " ".join(job.shellcmd.split()),
        "files": [str(file) for file in job.input],
        "outputs": [str(file) for file in job.output],
        "params": job.params.values,
    }
