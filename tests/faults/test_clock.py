"""The clock jumps: results of the future are kept, but not for ever; those of the past are not made twice."""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path

import pytest
from engine_calls import call, set_param
from project_copy import ROOT

from tfnas.engines.snakemake import redate_future
from tfnas.stages.job import open_job

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
    options = argparse.Namespace(params=ROOT / "params.yaml", out=Path("out"), log=Path("logs/report.log"))
    with open_job("report", options, inputs=[source], outputs=["page.html"]) as job:
        (job.out / "page.html").write_text("x")
    assert {path.stat().st_mtime for path in Path("out").iterdir()} == {later}
