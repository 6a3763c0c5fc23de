"""Project folders that a test may run in or spoil."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.engines.calls import call, commit, snakemake
from tests.helpers.projects import commit_all, copy_project, keep_one_target, use_stubs


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
    return Path(shutil.copytree(finished_once, tmp_path / "tfnas", symlinks=True))


@pytest.fixture
def ran(tmp_path: Path, ran_once: Path) -> Path:
    """The project with scripts that take no time, without git, after `snakemake`."""
    return Path(shutil.copytree(ran_once, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        make_repository(folder)
        call(folder, "dvc", "repro", "--quiet")
        commit(folder, "run")

    return shared(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def ran_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        use_stubs(copy_project(folder))
        snakemake(folder)

    return shared(tmp_path_factory, "ran", make)


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A project folder that the first of all processes of pytest-xdist that needs it makes, and the others copy."""
    base = factory.getbasetemp()
    place = (base.parent if base.name.startswith("popen-") else base) / f"shared-{name}"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "made").exists():
            shutil.rmtree(place / "project", ignore_errors=True)
            make(place / "project")
            (place / "made").touch()
    return place / "project"


def make_repository(folder: Path) -> Path:
    copy_project(folder, git=True)
    use_stubs(folder)
    keep_one_target(folder)
    commit_all(folder)
    return folder
