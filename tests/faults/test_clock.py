"""The clock jumps: results of the future are kept, but not for ever; those of the past are not made twice."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from tests.helpers.engines.calls import call
from tests.helpers.fake_stage import run_fake_stage
from tests.helpers.projects import ROOT, set_param
from tfnas.engines.snakemake import redate_future
from tfnas.stages.job import Job

DAY = 86400.0
TARGET = "results/build_subset/train.csv"
STEPPING = "results/rank_classes"


def shift(folder: Path, seconds: float) -> None:
    """Date all files below a folder earlier or later."""
    for path in [folder, *folder.rglob("*")]:
        date = path.stat().st_mtime + seconds
        os.utime(path, (date, date))


def run(folder: Path) -> list[str]:
    """Stages that Snakemake ran for `TARGET`."""
    text = call(folder, "snakemake", "--cores", "2", TARGET)
    return re.findall(r"^Job \d+: (\w+)", text, re.MULTILINE)


@pytest.mark.slow
def test_results_of_the_future_are_kept_and_become_stale_all_the_same(folder, monkeypatch) -> None:
    monkeypatch.setenv("TFNAS_STEPS", "1")
    assert run(folder) == ["prepare_data", "rank_classes", "build_subset"]
    for stage in ("rank_classes", "build_subset"):
        shift(folder / "results" / stage, DAY)
    assert run(folder) == []
    assert max(path.stat().st_mtime for path in (folder / "results").rglob("provenance.json")) < time.time()
    shift(folder / "results", DAY)
    with (folder / "workflow/scripts/build_subset.py").open("a") as file:
        file.write("# changed\n")
    assert run(folder) == ["build_subset"]
    shift(folder / "results", DAY)
    set_param(folder, "rank_classes.batch_size", 7)
    assert run(folder) == ["rank_classes", "build_subset"]


def test_nothing_is_dated_anew_while_the_clock_is_right(tmp_path) -> None:
    job = tmp_path / "results" / "search" / "A"
    job.mkdir(parents=True)
    (job / "provenance.json").write_text("{}")
    before = (job / "provenance.json").stat().st_mtime
    assert redate_future(tmp_path) == []
    assert (job / "provenance.json").stat().st_mtime == before
    shift(tmp_path / "results", DAY)
    assert redate_future(tmp_path) == ["results/search/A"]


def test_a_job_dates_nothing_before_its_inputs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    source = tmp_path / "in.csv"
    source.write_text("a\n")
    later = time.time() + DAY  # the clock was ahead when it was written
    os.utime(source, (later, later))
    arguments = ["--params", str(ROOT / "params.yaml"), "--results", "in.csv", "--out", "out", "--log", "logs/r.log"]

    def run(job: Job) -> None:
        for output in job.stage.outputs:
            (job.out / output.name).write_text("{}")

    run_fake_stage("report", arguments, run=run)
    assert {path.stat().st_mtime for path in Path("out").iterdir()} == {later}
