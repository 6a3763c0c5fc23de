"""A project to run on a cluster: its stages take no time, but for one that takes many short steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.projects import stub_project


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """rank_classes is the one that steps."""
    return stub_project(tmp_path / "project")
