"""Copies of the project's pipeline files, to run or to spoil without touching the checkout."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from tfnas.stages.registry import SCRIPT_FOLDER, STAGES

ROOT = Path(__file__).parents[2]
COPIED = ("Snakefile", "dvc.yaml", "params.yaml", ".dvcignore", "workflow", "profiles", "tfnas", "presets", "inputs")
LISTED = [name for name, stage in STAGES.items() if stage.listed_in is not None]  # may have no jobs
SCRIPT = "from tests.helpers.engines.{module} import main\n\nmain(__file__)\n"


def copy_project(folder: Path, *, git: bool = False, checkout: Path = ROOT) -> Path:
    """Make `folder` the pipeline as a checkout has it: a DVC project with or without git, and no results."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif checkout == ROOT or source.exists():  # an old one may lack some
            shutil.copy(source, folder / name)
    (folder / ".dvc").mkdir()
    scm = "autostage = false" if git else "no_scm = true"
    (folder / ".dvc" / "config").write_text(f"[core]\n    analytics = false\n    {scm}\n")
    for name in LISTED:
        (folder / "results" / name).mkdir(parents=True)
    return folder


def stub_project(folder: Path, stepping: Sequence[str] = ("rank_classes",)) -> Path:
    """Such a copy with scripts that take no time, but for those that take many short steps: to run, kill and spoil."""
    copy_project(folder)
    use_stubs(folder)
    for stage in stepping:
        script_of(folder, stage).write_text(SCRIPT.format(module="stepping_stage"))
    return folder


def use_stubs(folder: Path) -> None:
    """Scripts that take no time in place of the project's own; they find this checkout by PYTHONPATH (see `calls`)."""
    for stage in STAGES:
        script_of(folder, stage).write_text(SCRIPT.format(module="stub_stage"))


def script_of(folder: Path, stage: str) -> Path:
    return folder / SCRIPT_FOLDER / f"{stage}.py"


def keep_one_target(folder: Path) -> None:
    """One job of each stage."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["targets"] = {"A": params["targets"]["A"]}
    params["transfer"]["targets"] = ["A"]
    params["baselines"] = {"targets": ["A"], "networks": ["random_1"]}
    path.write_text(yaml.safe_dump(params))


def set_param(folder: Path, key: str, value: object) -> None:
    """Write one value into the folder's params.yaml."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    section = params
    for part in parents:
        section = section[part]
    section[last] = value
    path.write_text(yaml.safe_dump(params))


def commit_all(folder: Path) -> None:
    """A git repository with what there is."""
    for name in (".gitignore", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, folder / name)
    for name in LISTED:
        (folder / "results" / name / ".gitkeep").touch()
    for command in ("init -q -b main", "config user.name tester", "config user.email tester@example.org", "add -A"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-qm", "pipeline"], cwd=folder, check=True)
