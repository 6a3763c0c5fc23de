"""Project folders that a test may run in or spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from engine_calls import call, commit
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
    copy_pipeline(folder, git=True)
    use_stubs(folder)
    keep_one_target(folder)
    commit_all(folder)
    return folder
