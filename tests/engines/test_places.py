"""Where and by whom the pipeline is run: any folder's name, no git repository, a user without a name or a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.engines.calls import call
from tests.helpers.projects import ROOT, commit_all, copy_project, keep_one_target, stub_project
from tfnas.engines.dvc import settle_scm
from tfnas.engines.lineage import find_commit
from tfnas.engines.sync import check_place
from tfnas.jobs.artifacts import git_trouble
from tfnas.jobs.errors import UserError
from tfnas.jobs.user import NAMES, SPARE, provide_for_user

HOSTILE = '-my o\'neil $HOME & `id` (ünï 项目) [x]; "q"'
JOBS = 13


def run(project: Path, monkeypatch, *command: str) -> str:
    """A module of the environment in the project's folder, as with it activated."""
    programs = project / ".venv" / "bin"
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return call(project, str(programs / "python"), "-m", *command)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """The pipeline with its environment inside, in a folder whose name means much to a shell."""
    project = stub_project(tmp_path / HOSTILE, stepping=())
    keep_one_target(project)
    (project / ".venv").symlink_to(sys.prefix)
    return project


@pytest.mark.slow
def test_both_engines_run_in_a_folder_of_any_name(hostile: Path, tmp_path: Path, monkeypatch) -> None:
    run(hostile, monkeypatch, "snakemake", "--cores", "2", "--quiet", "all")
    assert len(list((hostile / "results").rglob("provenance.json"))) == JOBS
    assert "up to date" in run(hostile, monkeypatch, "dvc", "status")
    run(hostile, monkeypatch, "dvc", "repro", "--force", "prepare_data")
    other = tmp_path / "other 'place'"
    other.mkdir()
    (other / "params.yaml").write_text((hostile / "params.yaml").read_text())
    first = "results/prepare_data/manifest.csv"
    run(hostile, monkeypatch, "snakemake", "--cores", "2", "--directory", str(other), first)
    assert (other / first).exists()


@pytest.mark.parametrize("name", ["a{b", "c}d", "{target}", "a:b"])
def test_what_no_program_can_hold_in_a_path_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rename that folder"):
        check_place(tmp_path, tmp_path / name / "project")
    check_place(tmp_path, tmp_path / HOSTILE)


def test_a_percent_sign_in_the_environments_path_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "50%" / ".venv"))
    with pytest.raises(UserError, match="has % in it"):
        check_place(tmp_path)


def test_a_library_that_no_path_can_name_does_not_start_again_and_again(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "a:b")
    command = [sys.executable, str(project / "workflow" / "scripts" / "report.py"), "--help"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "rename that folder" in done.stderr


@pytest.mark.slow
def test_without_git_the_pipeline_runs_and_says_what_is_lost(tmp_path: Path) -> None:
    project = stub_project(tmp_path / "tfnas-main", stepping=())
    keep_one_target(project)
    (project / ".dvc" / "config").write_text((ROOT / ".dvc" / "config").read_text())
    for last in ("up to date in DVC as well", "Nothing to be done"):
        text = call(project, "snakemake", "--cores", "2")
        assert last in text and text.count("is in no git repository") == 1 and "git init" in text
    assert "up to date" in call(project, "dvc", "status")
    command = (sys.executable, "-c", "import sys; from tfnas.cli import main; sys.exit(main())")
    for words in (("sync",), ("restore",), ("compare-runs", "workspace")):
        call(project, *command, *words)
    assert "git init" in call(project, *command, "compare-runs", "main", ok=False)
    commit_all(project)
    assert "git" not in call(project, "snakemake", "--cores", "2").partition("Building")[0].partition("Config MD5")[2]
    assert "differs" in call(project, *command, "compare-runs", "main")


@pytest.mark.parametrize("text", ["", "[core]\n    remote = x\n", "[cache]\n    dir = /data\n"])
def test_dvc_is_told_of_no_git_and_of_git(text: str, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    path = tmp_path / ".dvc" / "config.local"
    path.write_text(text)
    settle_scm(tmp_path)
    settle_scm(tmp_path)
    from dvc.config import Config

    config = Config(str(tmp_path / ".dvc"), validate=True)
    assert config["core"]["no_scm"] and path.read_text().count("no_scm") == 1
    (tmp_path / ".git").mkdir()
    settle_scm(tmp_path)
    assert path.read_text().replace("[core]\n", "") == text.replace("[core]\n", "")


def test_why_no_commit_is_recorded(tmp_path: Path, monkeypatch) -> None:
    assert "git init" in (git_trouble(tmp_path) or "")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert "no commit" in (git_trouble(tmp_path) or "")
    names = ("user.name=tester", "user.email=tester@example.org")
    settings = [part for name in names for part in ("-c", name)]
    subprocess.run(["git", *settings, "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True)
    assert git_trouble(tmp_path) is None
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch to test this
    assert "safe.directory" in (git_trouble(tmp_path) or "")
    assert "safe.directory" in find_commit("0" * 40, tmp_path).state
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed" in (git_trouble(tmp_path) or "")


def test_a_user_without_a_name_gets_one_and_others_keep_theirs(monkeypatch) -> None:
    import getpass
    import pwd

    def unlisted(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unlisted)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    provide_for_user()
    assert getpass.getuser() == f"user-{os.getuid()}"
    monkeypatch.setenv("LOGNAME", "somebody")
    provide_for_user()
    assert getpass.getuser() == "somebody"


@pytest.mark.parametrize("home", [None, "", "file", "missing/home"])
def test_without_a_home_caches_lie_in_the_project(home: str | None, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "set, so that it is put back")
        monkeypatch.delenv(name)
    if home is not None:
        monkeypatch.setenv("HOME", str(tmp_path / home) if home else "")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).is_relative_to(tmp_path / SPARE.parts[0]))
    (tmp_path / SPARE.parts[0]).mkdir()
    monkeypatch.setattr("pwd.getpwnam", None)
    monkeypatch.setattr("pwd.getpwuid", lambda _: type("Entry", (), {"pw_dir": "/nonexistent"}))
    provide_for_user()
    assert os.environ["HOME"] == str(tmp_path / SPARE) and (tmp_path / SPARE).is_dir()
    assert all(Path(os.environ[name]).is_relative_to(tmp_path / SPARE) for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR"))


def test_a_home_that_can_be_written_stays_as_it_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    before = dict(os.environ)
    provide_for_user()
    assert dict(os.environ) == before


@pytest.mark.slow
def test_snakemake_and_dvc_run_for_such_a_user(tmp_path: Path, monkeypatch) -> None:
    """As `make setup` arranges it: at the start of every Python; here by a `sitecustomize`."""
    project = stub_project(tmp_path / "project", stepping=())
    site = tmp_path / "site"
    site.mkdir()
    nobody = "import pwd\ndef unlisted(uid): raise KeyError(uid)\npwd.getpwuid = unlisted\n"
    provided = (ROOT / "Makefile").read_text().partition("PROVIDE := ")[2].partition("\n")[0]
    (site / "sitecustomize.py").write_text(f"{nobody}{provided}\n")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("HOME", "/dev/null/home")
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    target = "results/rank_classes/metrics.json"
    text = call(project, sys.executable, "-m", "snakemake", "--cores", "2", target)
    assert (project / target).exists() and (project / SPARE).is_dir(), text
    assert call(project, sys.executable, "-m", "dvc", "repro", "rank_classes").count("didn't change") == 2
