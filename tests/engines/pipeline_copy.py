"""Copies of the project's pipeline files, to run or to spoil without touching the checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml
from stub_stage import OUTPUTS

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).with_name("stub_stage.py")
COPIED = ("Snakefile", "dvc.yaml", "params.yaml", ".dvcignore", "workflow", "tfnas", "presets")


def copy_pipeline(folder: Path, *, git: bool) -> None:
    """The pipeline as shipped, a DVC project with or without git, and no results."""
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / ".dvc").mkdir()
    scm = "autostage = false" if git else "no_scm = true"
    (folder / ".dvc" / "config").write_text(f"[core]\n    analytics = false\n    {scm}\n")
    (folder / "results" / "transfer").mkdir(parents=True)


def use_stubs(folder: Path) -> None:
    """Scripts that take no time in place of the project's own."""
    for stage in OUTPUTS:
        shutil.copy(STUB, folder / "workflow" / "scripts" / f"{stage}.py")


def keep_one_target(folder: Path) -> None:
    """Ten jobs instead of fourteen."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["targets"] = {"A": params["targets"]["A"]}
    params["transfer"]["targets"] = ["A"]
    path.write_text(yaml.safe_dump(params))


def commit_all(folder: Path) -> None:
    """A git repository with what there is."""
    for name in (".gitignore", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "results" / "transfer" / ".gitkeep").touch()
    for command in ("init -q -b main", "config user.name tester", "config user.email tester@example.org", "add -A"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-qm", "pipeline"], cwd=folder, check=True)
