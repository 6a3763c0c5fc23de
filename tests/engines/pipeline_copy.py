"""Changes to a copy of the project's pipeline files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml
from project_copy import ROOT
from stub_stage import OUTPUTS

STUB = Path(__file__).with_name("stub_stage.py")


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
