"""Snakemake as a command, in the environment of the Python that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tfnas.runtime.errors import UserError

SYNCING = "TFNAS_SYNCING"  # says to the Snakefile that we call it, so that it does not call us


def snakemake(folder: Path, *options: str) -> str:
    """What Snakemake prints in a project folder.

    Raises:
        UserError: it fails; with the end of its own message.
    """
    programs = Path(sys.executable).parent
    path = os.pathsep.join((str(programs), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path, SYNCING: "1"}
    command = [str(programs / "snakemake"), *options]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()
        raise UserError(f"snakemake {options[0]} failed: {' '.join(line.strip() for line in lines[-3:])}")
    return finished.stdout
