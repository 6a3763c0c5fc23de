"""Jobs of DVC experiments: known by the experiment's name, and what must last lies in the project's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from tfnas.jobs.checkpoints import CheckpointFolder
from tfnas.tracking import runs as tracking
from tfnas.tracking.params import TrackingParams
from tfnas.tracking.runs import tracked_run

TRACKING = TrackingParams(experiment="test", timeout_seconds=1, max_retries=0)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project, and the experiment lam02 that runs in a folder of its own, the working directory."""
    project, folder = tmp_path / "project", tmp_path / "temporary"
    project.mkdir()
    folder.mkdir()
    (folder / "params.yaml").write_text("seed: 0\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("DVC_EXP_NAME", "lam02")
    return project


@pytest.mark.parametrize("uri", [None, "sqlite:///mlflow.db"])
def test_a_run_is_kept_in_the_project_under_the_experiments_name(project, monkeypatch, uri) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with tracked_run("search", {}, TRACKING, Path("params.yaml"), target="A") as run:
        run.log_artifact(Path("params.yaml"))
    found = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db").get_run(run.id)
    assert found.info.run_name == "lam02: search-A"
    assert found.data.tags["dvc_experiment"] == "lam02"
    assert found.info.artifact_uri.removeprefix("file://").startswith(f"{project}/mlruns")
    assert [path.name for path in project.rglob("params.yaml")] == ["params.yaml"]
    assert [path.name for path in Path().iterdir()] == ["params.yaml"]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    monkeypatch.delenv("DVC_EXP_NAME")
    with tracked_run("search", {}, TRACKING, Path("params.yaml"), target="A") as run:
        pass
    found = mlflow.MlflowClient().get_run(run.id)
    assert found.info.run_name == "search-A" and "dvc_experiment" not in found.data.tags


@pytest.mark.parametrize("experiment", [None, "lam02"])
def test_an_experiments_network_does_not_take_the_alias(monkeypatch, experiment) -> None:
    logged = []
    monkeypatch.setattr(tracking, "_log_model", lambda network, example, alias: logged.append(alias))
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    if experiment:
        monkeypatch.setenv("DVC_EXP_NAME", experiment)
    tracking.Run("0").log_model(torch.nn.Identity(), np.zeros(1), alias="A")
    assert logged == ["A" if experiment is None else None]


def test_checkpoints_outlive_the_folder_and_experiments_do_not_share_them(project) -> None:
    with (
        CheckpointFolder("checkpoints/search/A", digest="a" * 64) as first,
        CheckpointFolder("checkpoints/search/A", digest="b" * 64) as second,
    ):
        first.save({"epoch": 1})
        second.save({"epoch": 2})
        assert [first.load(), second.load()] == [{"epoch": 1}, {"epoch": 2}]
        assert first.path.is_relative_to(project / "checkpoints")
        second.discard()
    with CheckpointFolder("checkpoints/search/A", digest="a" * 64) as again:
        assert again.load() == {"epoch": 1}
        again.discard()
    assert [path for path in project.rglob("*") if path.is_file()] == []


def test_an_experiment_in_the_project_itself_keeps_its_checkpoints_as_ever(project, monkeypatch) -> None:
    monkeypatch.chdir(project)
    assert CheckpointFolder("checkpoints/search/A", digest="a" * 64).path == Path("checkpoints/search/A")


def test_a_script_runs_with_the_library_beside_it(tmp_path) -> None:
    script = tmp_path / "workflow" / "scripts" / "stage.py"
    stages = tmp_path / "tfnas" / "stages"
    for path in (script.parent, stages):
        path.mkdir(parents=True)
    script.write_text("from tfnas.stages.job import run_stage\nrun_stage('search')\n")
    for path in (stages.parent, stages):
        (path / "__init__.py").write_text("")
    (stages / "job.py").write_text("import sys\ndef run_stage(name):\n    print('own', name, sys.argv[1:])\n")
    library = Path(tracking.__file__).parents[2]
    finished = subprocess.run(
        [sys.executable, str(script), "--out", "x y"],
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "own search ['--out', 'x y']\n"
