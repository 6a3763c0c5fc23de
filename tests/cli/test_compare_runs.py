"""`tfnas compare-runs`: exactly what differs, between commits, experiments, MLflow runs and pipelines."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tfnas.cli import main
from tfnas.engines.compare import Difference, differences, read_side
from tfnas.jobs.errors import UserError
from tfnas.tracking.params import TrackingParams
from tfnas.tracking.runs import tracked_run

STAGE = {
    "cmd": "python stage.py",
    "deps": ["stage.py"],
    "params": ["search"],
    "metrics": ["results/search/A/metrics.json"],
}
SCRIPT = """
import json, pathlib, yaml
weight = yaml.safe_load(open("params.yaml"))["search"]["lambda"]
out = pathlib.Path("results/search/A")
out.mkdir(parents=True, exist_ok=True)
(out / "metrics.json").write_text(json.dumps({"latency_ms": 10 * weight, "epochs": 3, "parts": {"a": weight}}))
"""
COLUMNS = ["", "name", "first", "second", "change"]
CHANGED = [
    ["params", "search.lambda", "0.1", "0.25", "0.15"],
    ["params", "search.widths", "[1, 2]", "", ""],
    ["metrics", "search/A.latency_ms", "1.0", "2.5", "1.5"],
    ["metrics", "search/A.parts.a", "0.1", "0.25", "0.15"],
]


def run(folder: Path, *command: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A pipeline of one stage, run and committed for two values of a parameter: tags first and second."""
    folder = tmp_path_factory.mktemp("compared")
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    run(folder, "git", "config", "user.name", "tester")
    run(folder, "git", "config", "user.email", "tester@example.org")
    (folder / ".gitignore").write_text("/results\n")
    (folder / "stage.py").write_text(SCRIPT)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"search": STAGE}}))
    for tag, search in (("first", {"lambda": 0.1, "widths": [1, 2]}), ("second", {"lambda": 0.25})):
        (folder / "params.yaml").write_text(yaml.safe_dump({"seed": 0, "search": search}))
        run(folder, "dvc", "repro", "-q")
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-qm", tag)
        run(folder, "git", "tag", tag)
    return folder


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory) -> Path:
    return Path(tmp_path_factory.mktemp("store"))


@pytest.fixture
def store(store_folder, monkeypatch) -> None:
    """An MLflow store, in the working directory, that these tests share: making one takes seconds."""
    monkeypatch.chdir(store_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store_folder}/mlflow.db")


def track(stage: str, target: str | None, values: dict, metrics: dict, seed: int = 0) -> str:
    """The id of a run that is finished."""
    Path("params.yaml").write_text(f"seed: {seed}\n")
    settings = TrackingParams(experiment="test", timeout_seconds=1, max_retries=0)
    with tracked_run(stage, values, settings, Path("params.yaml"), target=target) as tracked:
        tracked.log_metrics(metrics)
    return str(tracked.id)


def pipeline_of(run_id: str) -> str:
    import mlflow

    return mlflow.MlflowClient().get_run(run_id).data.tags["pipeline_id"]


def test_two_commits_differ_in_exactly_what_was_changed(repository, tmp_path, capsys) -> None:
    out = tmp_path / "changed.csv"
    assert main(["compare-runs", "first", "second", "--folder", str(repository), "--out", str(out)]) == 0
    rows = list(csv.reader(out.open()))
    assert rows == [COLUMNS, *CHANGED]
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["params", "search.lambda", "0.1", "0.25", "+0.15"] in printed
    assert not any("epochs" in word or "seed" in word for line in printed for word in line)


def test_a_commit_is_compared_with_the_folder_as_it_stands(repository, capsys) -> None:
    assert main(["compare-runs", "second", "--folder", str(repository)]) == 0
    assert capsys.readouterr().out == "second and workspace: nothing differs\n"
    assert len(differences(read_side(repository, "HEAD~1"), read_side(repository, "workspace"))) == 4


def test_a_table_for_people(repository, tmp_path) -> None:
    out = tmp_path / "changed.md"
    assert main(["compare-runs", "first", "second", "--folder", str(repository), "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[:3] == [
        "|  | name | first | second | change |",
        "|---|---|---|---|---|",
        "| params | search.lambda | 0.1 | 0.25 | +0.15 |",
    ]
    assert len(lines) == 2 + len(CHANGED)


def test_metrics_that_the_cache_lacks_are_said(repository, tmp_path, capsys) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(repository), str(clone))
    assert main(["compare-runs", "first", "second", "--folder", str(clone)]) == 0
    printed = capsys.readouterr().out
    assert "search.lambda" in printed and "first: 1 metrics files are not in the DVC cache" in printed


def test_two_runs_of_mlflow(store, tmp_path, capsys) -> None:
    first = track("search", "A", {"search": {"lambda": 0.1}, "targets.A.dropout": 0.2}, {"loss": 2.0, "epochs": 3})
    second = track("search", "A", {"search": {"lambda": 0.2}, "targets.A.dropout": 0.2}, {"loss": 1.5, "epochs": 3})
    found = differences(read_side(tmp_path, first), read_side(tmp_path, second))
    assert found == [Difference("params", "search.lambda", "0.1", "0.2"), Difference("metrics", "loss", 2.0, 1.5)]
    assert [difference.change for difference in found] == [pytest.approx(0.1), -0.5]


def test_two_pipelines_of_mlflow_by_their_newest_runs(store, repository, capsys) -> None:
    for loss in (9.0, 2.0):
        first = track("search", "A", {"targets.A.constraint": {"relative": 0.5}}, {"loss": loss}, seed=1)
    track("derive", "A", {"seed": 0}, {"macs": 5.0}, seed=1)
    second = track("search", "A", {"targets.A.constraint": {"relative": 0.6}}, {"loss": 1.5}, seed=2)
    sides = [read_side(repository, pipeline_of(run_id)) for run_id in (first, second)]
    assert differences(*sides) == [
        Difference("params", "targets.A.constraint.relative", "0.5", "0.6"),
        Difference("metrics", "search/A.loss", 2.0, 1.5),
    ]
    assert main(["compare-runs", *map(pipeline_of, (first, second)), "--folder", str(repository)]) == 0
    assert f"run by {pipeline_of(first)} only, not compared: derive/A\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["no-such-branch", "0" * 32, "0" * 12])
def test_a_name_that_nobody_knows_is_one_line(store, repository, capsys, name) -> None:
    track("search", "A", {}, {})
    assert main(["compare-runs", name, "first", "--folder", str(repository)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: ")


def test_a_commit_and_a_run_are_not_compared(store, repository) -> None:
    tracked = track("search", "A", {}, {})
    with pytest.raises(UserError, match="two of a kind"):
        differences(read_side(repository, "first"), read_side(repository, tracked))


def test_the_tables_name_is_checked_before_any_work(capsys) -> None:
    assert main(["compare-runs", "first", "second", "--out", "table.txt"]) == 2
    assert "must end in .md or .csv" in capsys.readouterr().err


def test_flags_and_text_have_no_change() -> None:
    assert Difference("params", "x", True, False).change is None
    assert Difference("params", "x", "cpu", "cuda").change is None
    assert Difference("metrics", "x", 1.0, float("nan")).change is None
    assert Difference("metrics", "x", 1, 3).change == 2.0
