"""Project folders that a test may run in or spoil."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_copy import commit_all, copy_pipeline, keep_one_target, use_stubs


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the pipeline as shipped, a DVC project without git, and no results."""
    folder = tmp_path / "project"
    copy_pipeline(folder, git=False)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with the pipeline for one target, with scripts that take no time; nothing is run yet."""
    folder = tmp_path / "tfnas"
    copy_pipeline(folder, git=True)
    use_stubs(folder)
    keep_one_target(folder)
    commit_all(folder)
    return folder
