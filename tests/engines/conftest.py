"""A copy of the project's pipeline files, to run or to spoil without touching the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest
from project_copy import copy_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the pipeline as shipped, a DVC project without git, and no results."""
    return copy_project(tmp_path / "project")
