"""Project folders that a test may run in or spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from engine_calls import call, commit
from pipeline_copy import commit_all, keep_one_target, use_stubs
from project_copy import copy_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the pipeline as shipped, a DVC project without git, and no results."""
    return copy_project(tmp_path / "project")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with the pipeline for one target, with scripts that take no time; nothing is run yet."""
    return make_repository(tmp_path / "tfnas")


@pytest.fixture
def finished(tmp_path: Path, finished_once: Path) -> Path:
    """The same after `dvc repro`, with dvc.lock committed; Snakemake has never looked."""
    return Path(shutil.copytree(finished_once, tmp_path / "tfnas"))


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_repository(tmp_path_factory.mktemp("finished") / "tfnas")
    call(folder, "dvc", "repro", "--quiet")
    commit(folder, "run")
    return folder


def make_repository(folder: Path) -> Path:
    copy_project(folder, git=True)
    use_stubs(folder)
    keep_one_target(folder)
    commit_all(folder)
    return folder
