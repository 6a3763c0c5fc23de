"""A copy of the project's pipeline files, to run or to spoil without touching the checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("Snakefile", "dvc.yaml", "params.yaml", ".dvcignore", "workflow", "profiles", "tfnas", "presets")


def copy_project(folder: Path) -> Path:
    """Make `folder` the pipeline as shipped: a DVC project without git, and no results."""
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (folder / "results" / "transfer").mkdir(parents=True)
    return folder
