"""The project with scripts that take no time, but for one that takes many short steps: to run, kill and spoil."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from project_copy import copy_project

TESTS = Path(__file__).parent
STUBS = TESTS / "engines"  # stub_stage, engine_calls
STEPPING = TESTS / "faults" / "stepping_stage.py"

for folder in (STUBS, TESTS / "faults"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def stub_project(folder: Path, monkeypatch, stepping: Sequence[str] = ("rank_classes",)) -> Path:
    """Make such a project; its scripts find this checkout's library."""
    from stub_stage import OUTPUTS

    monkeypatch.setenv("TFNAS_STUBS", str(STUBS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(TESTS.parent), os.environ.get("PYTHONPATH", ""))))
    project = copy_project(folder)
    for stage in OUTPUTS:
        script = STEPPING if stage in stepping else STUBS / "stub_stage.py"
        shutil.copy(script, project / "workflow" / "scripts" / f"{stage}.py")
    return project
