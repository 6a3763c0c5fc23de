"""A copy of the project's pipeline files, to run or to spoil without touching the checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("Snakefile", "dvc.yaml", "params.yaml", ".dvcignore", "workflow", "profiles", "tfnas", "presets", "inputs")


def copy_project(folder: Path, *, git: bool = False) -> Path:
    """Make `folder` the pipeline as shipped: a DVC project with or without git, and no results."""
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
    return folder
