"""Coming back to a commit's results: from the cache, without running, and without losing what is saved nowhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.helpers.engines.calls import call, commit, planned_by_dvc, planned_by_snakemake
from tests.helpers.projects import set_param
from tfnas.cli import main

pytestmark = pytest.mark.slow


def restore(folder: Path, *options: str) -> int:
    return main(["restore", "--folder", str(folder), *options])


def test_results_that_nobody_has_saved_are_kept_and_lacking_ones_are_named(finished, capsys) -> None:
    weights = finished / "results" / "retrain" / "A" / "weights.pt"
    saved = weights.read_text()
    weights.write_text("ours")
    assert restore(finished) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "weights.pt" in line and "--force" in line
    assert weights.read_text() == "ours"
    assert restore(finished, "--force") == 0
    assert weights.read_text() == saved
    jobs = len(yaml.safe_load((finished / "dvc.lock").read_text())["stages"])
    assert f"{jobs} stages up to date in both engines, 0 to run" in capsys.readouterr().out

    assert planned_by_snakemake(finished) == set()
    shutil.rmtree(finished / ".dvc" / "cache" / "files")
    shutil.rmtree(finished / "results" / "retrain")
    assert restore(finished) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert "results/retrain/A/" in line and "and 4 more not in the DVC cache; `dvc pull` fetches" in line
    assert f"{jobs - 3} stages up to date in both engines, 3 to run" in printed.out
    assert [text.split()[-1] for text in printed.out.splitlines()[1:]] == [
        "retrain@A",
        "transfer@A-shifted-digits",
        "report",
    ]


def test_a_commit_without_results_says_so_and_touches_nothing(finished, capsys) -> None:
    (finished / "dvc.lock").unlink()
    before = {path: path.stat().st_mtime for path in (finished / "results").rglob("*")}
    assert restore(finished) == 2
    assert "dvc.lock: is missing" in capsys.readouterr().err
    assert {path: path.stat().st_mtime for path in (finished / "results").rglob("*")} == before


def test_a_target_that_the_commit_does_not_have_leaves_no_results(finished) -> None:
    set_param(finished, "targets.B", {"constraint": {"relative": 0.1}, "dropout": 0.2})
    call(finished, "dvc", "repro", "--quiet")
    commit(finished, "another target")
    assert planned_by_snakemake(finished) == set()
    call(finished, "git", "checkout", "--quiet", "HEAD~1")
    assert restore(finished) == 0
    assert not list((finished / "results").glob("*/B/*"))
    assert planned_by_snakemake(finished) == planned_by_dvc(finished) == set()
