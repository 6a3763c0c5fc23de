"""The pipeline's files: where they are, and a project made of them in an empty folder.

A checkout is a project. A wheel carries the same files in `tfnas/project/`, where setup.py puts them. `tfnas init` lays
them out together with a copy of the library: both engines compare the code that results were made with, and a job
runs the library of its own folder.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

LIBRARY = Path(__file__).parents[2]  # tfnas/
CARRIED = LIBRARY / "project"
MARK = "Snakefile"


def pipeline_files() -> Path:
    """The folder that holds Snakefile, dvc.yaml, workflow/ and presets/: the wheel's, or the checkout."""
    return CARRIED if CARRIED.is_dir() else LIBRARY.parent


def run_command(folder: Path) -> str:
    """What runs the pipeline on a folder's params.yaml: its own, else the checkout's or the wheel's."""
    elsewhere = "" if (folder / MARK).exists() else f" --snakefile {shlex.quote(str(pipeline_files() / MARK))}"
    return f"snakemake --cores all{elsewhere}"


def lay_out(folder: Path, *, source: Path = CARRIED, library: Path = LIBRARY) -> str:
    """Make a folder without a Snakefile a project, if it has nothing of the same names; and say what was done.

    Args:
        source: the pipeline's files as a wheel carries them; without them, nothing is laid out.

    Returns:
        What the user is told; empty where nothing was to be done.
    """
    if (folder / MARK).exists() or not source.is_dir():
        return ""
    names = [*sorted(path.name for path in source.iterdir()), library.name]
    taken = [name for name in names if (folder / name).exists() and name != ".gitignore"]
    if taken:
        return f"No {MARK} here, and none is laid out next to your own {', '.join(taken)}: use an empty folder for that"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tfnas-init-") as staging:
        whole = Path(staging) / "whole"
        shutil.copytree(source, whole)
        shutil.copytree(library, whole / library.name, ignore=shutil.ignore_patterns("__pycache__", source.name))
        for name in sorted(names, key=lambda name: name == MARK):  # the mark last: a killed one is no project
            if not (folder / name).exists():
                (whole / name).rename(folder / name)
    return f"Laid out the pipeline next to it: {', '.join(name for name in names if not name.startswith('.'))}"
