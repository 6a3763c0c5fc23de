"""The DVC experiment that a job belongs to: its name, and the project's folder.

`dvc exp run --queue` and `--temp` run in a folder of their own, which DVC removes at the end: what must outlive it
(tracking, checkpoints) belongs into the project's folder.
"""

from __future__ import annotations

import os
from pathlib import Path


def experiment_name() -> str | None:
    """What `dvc exp show` calls the experiment that runs this job; None outside of one."""
    return os.environ.get("DVC_EXP_NAME") or None


def project_folder() -> Path:
    """Where the project stays: the working directory (empty path), or, of an experiment elsewhere, its project."""
    root = os.environ.get("DVC_ROOT")
    if experiment_name() is None or not root or Path(root).resolve() == Path.cwd():
        return Path()
    return Path(root)
