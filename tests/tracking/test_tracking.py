"""Tracking: one run a job, jobs that start together share a store, an outage costs no result."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import flatten
from tfnas.tracking.lost import PROCESS, end_lost_runs
from tfnas.tracking.params import TrackingParams
from tfnas.tracking.runs import model_alias, tracked_run

TRACKING = TrackingParams(experiment="test", timeout_seconds=1, max_retries=0)
JOB = """
import sys
from pathlib import Path
from tfnas.tracking.params import TrackingParams
from tfnas.tracking.runs import tracked_run
tracking = TrackingParams(experiment="test", timeout_seconds=1, max_retries=0)
with tracked_run("search", {"search": {"lambda": 0.1}}, tracking, Path("params.yaml"), target=sys.argv[1]) as run:
    for epoch in range(3):
        run.log_metrics({"loss": 1.0 / (epoch + 1)}, step=epoch)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A project folder with a store of its own: MLflow keeps one connection for a relative name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    return tmp_path


def runs(folder: Path):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return client.search_runs([client.get_experiment_by_name("test").experiment_id])


def test_jobs_that_start_together_share_a_new_store(folder, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    jobs = [subprocess.Popen([sys.executable, "-c", JOB, target], cwd=folder) for target in "ABCD"]
    assert [job.wait() for job in jobs] == [0, 0, 0, 0]
    found = runs(folder)
    assert {run.data.tags["target"] for run in found} == set("ABCD")
    for run in found:
        assert run.info.status == "FINISHED"
        assert run.data.params == {"search.lambda": "0.1"}
        assert run.data.metrics == {"loss": pytest.approx(1 / 3)}
    assert len({run.data.tags["pipeline_id"] for run in found}) == 1


def test_a_job_killed_while_it_makes_the_store_leaves_none(folder) -> None:
    job = subprocess.Popen([sys.executable, "-c", JOB, "A"], cwd=folder)
    while job.poll() is None and not list(folder.glob(".mlflow.db.*")):
        time.sleep(0.01)
    job.kill()
    assert job.wait() == -signal.SIGKILL and not (folder / "mlflow.db").exists()
    subprocess.run([sys.executable, "-c", JOB, "A"], cwd=folder, check=True)
    assert [run.info.status for run in runs(folder)] == ["FINISHED"]


def kill_a_job(folder: Path) -> None:
    """Kill a job while its run is open."""
    waits = JOB.replace("for epoch in range(3):", "Path('open').touch()\n    for epoch in iter(int, 1):")
    waits = waits.replace("run.log_metrics", "__import__('time').sleep(600)  #")
    job = subprocess.Popen([sys.executable, "-c", waits, "A"], cwd=folder)
    while not (folder / "open").exists():
        assert job.poll() is None
        time.sleep(0.05)
    job.kill()
    job.wait()


def test_the_run_of_a_killed_job_is_ended_by_the_next_job_and_opened_again_by_one_that_resumes_it(folder) -> None:
    kill_a_job(folder)
    (lost,) = runs(folder)
    assert lost.info.status == "RUNNING"
    with tracked_run("search", {}, TRACKING, Path("params.yaml"), target="B") as run:
        assert {found.info.run_id: found.info.status for found in runs(folder)} == {
            lost.info.run_id: "KILLED",
            run.id: "RUNNING",
        }
    with tracked_run("search", {}, TRACKING, Path("params.yaml"), target="A", resumes=lost.info.run_id) as run:
        assert run.id == lost.info.run_id
        subprocess.run([sys.executable, "-c", JOB, "C"], cwd=folder, check=True)
        assert {found.info.status for found in runs(folder) if found.info.run_id == run.id} == {"RUNNING"}
    assert {found.info.status for found in runs(folder)} == {"FINISHED"}


@pytest.mark.parametrize("tag", ["", "elsewhere 1 0", "{host} {pid} {start}"])
def test_a_run_is_ended_only_if_its_process_was_here_and_is_gone(folder, tag: str) -> None:
    import mlflow

    process = psutil.Process()
    text = tag.format(host=socket.gethostname(), pid=process.pid, start=process.create_time())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("test")
    client = mlflow.MlflowClient()
    kept = client.create_run(experiment, tags={PROCESS: text} if text else {})
    reused = client.create_run(experiment, tags={PROCESS: f"{socket.gethostname()} {process.pid} 1000"})
    assert end_lost_runs(client, experiment) == [reused.info.run_id]
    assert client.get_run(kept.info.run_id).info.status == "RUNNING"


def test_a_job_that_is_no_stages_has_a_name_and_tags_of_its_own(folder) -> None:
    tags = {"name": "one_path-none-seed_0", "claim": "figure-2", "variant": "one_path", "seed": "0"}
    with tracked_run("claims", {}, TRACKING, Path("params.yaml"), tags=tags):
        pass
    (found,) = runs(folder)
    assert found.info.run_name == "claims-one_path-none-seed_0"
    assert tags.items() - {("name", "one_path-none-seed_0")} <= found.data.tags.items()
    assert "name" not in found.data.tags and found.data.tags["stage"] == "claims"


def test_two_targets_log_parameters_of_one_name(folder) -> None:
    for target in "AB":
        with tracked_run("retrain", {f"targets.{target}.dropout": 0.2}, TRACKING, Path("params.yaml"), target=target):
            pass
    assert [run.data.params for run in runs(folder)] == [{"target.dropout": "0.2"}] * 2


def test_a_run_says_what_job_it_was_and_how_it_ended(folder) -> None:
    with pytest.raises(RuntimeError), tracked_run("transfer", {}, TRACKING, Path("params.yaml"), dataset="d"):
        raise RuntimeError
    (run,) = runs(folder)
    assert (run.info.run_name, run.info.status) == ("transfer-d", "FAILED")
    assert (run.data.tags["stage"], run.data.tags["dataset"]) == ("transfer", "d")
    assert "target" not in run.data.tags and "git_commit" in run.data.tags


def test_an_interrupted_run_goes_on_and_gets_no_epoch_twice(folder) -> None:
    with pytest.raises(RuntimeError), tracked_run("search", {"seed": 0}, TRACKING, Path("params.yaml")) as run:
        for step in (1, 2):
            run.log_metrics({"loss": 1.0 / step}, step=step)
        raise RuntimeError
    with tracked_run("search", {"seed": 0}, TRACKING, Path("params.yaml"), resumes=run.id) as again:
        for step in (1, 2, 3):
            again.log_metrics({"loss": 1.0 / step}, step=step)
        again.log_metrics({"final": 1.0})
    (found,) = runs(folder)
    assert (found.info.run_id, found.info.status) == (again.id, "FINISHED") and again.id == run.id
    import mlflow

    history = mlflow.MlflowClient().get_metric_history(run.id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert found.data.metrics["final"] == 1.0


def test_a_run_that_the_store_does_not_have_is_begun_anew(folder) -> None:
    with tracked_run("search", {}, TRACKING, Path("params.yaml"), resumes="0" * 32) as run:
        pass
    assert [found.info.run_id for found in runs(folder)] == [run.id] != ["0" * 32]


def test_logged_model_takes_any_batch_and_gives_the_networks_logits(folder) -> None:
    import mlflow

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    with tracked_run("retrain", {}, TRACKING, Path("params.yaml"), target="A") as run:
        run.log_model(network, np.zeros((1, 3, 8, 8), dtype=np.float32))
    (logged,) = mlflow.search_logged_models(output_format="list")
    assert logged.source_run_id == run.id
    loaded = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 3, 8, 8)
    for batch_size in (1, 5):
        images = np.random.default_rng(0).random((batch_size, 3, 8, 8), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(loaded.predict(images), expected, atol=1e-6)


def test_a_targets_newest_model_has_its_alias(folder) -> None:
    import mlflow

    networks = {}
    for target in ("A", "B", "A", "v1", "latest"):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        with tracked_run("retrain", {}, TRACKING, Path("params.yaml"), target=target) as run:
            run.log_model(network, np.zeros((1, 3, 2, 2), dtype=np.float32), alias=target)
        networks[model_alias(target)] = network
    images = np.ones((2, 3, 2, 2), dtype=np.float32)
    for alias, network in networks.items():
        loaded = mlflow.pyfunc.load_model(f"models:/test@{alias}")
        expected = network(torch.from_numpy(images)).detach().numpy()
        np.testing.assert_allclose(loaded.predict(images), expected, atol=1e-6)
    assert mlflow.MlflowClient().get_registered_model("test").aliases == {
        "A": 3,
        "B": 2,
        "target-v1": 4,
        "target-latest": 5,
    }


def test_a_server_that_is_not_there_is_one_line(folder, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI: http://127\.0\.0\.1:9 cannot be opened"),
        tracked_run("search", {}, TRACKING, Path("params.yaml")),
    ):
        pytest.fail("the job ran")


def test_a_store_that_fails_later_costs_no_job(folder, monkeypatch, caplog) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    def fail(*_, **__):
        raise MlflowException("the server is gone")

    with tracked_run("search", {}, TRACKING, Path("params.yaml")) as run:
        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", fail)
        run.log_metrics({"loss": 1.0}, step=1)
    assert "the server is gone" in caplog.text


def test_nested_values_become_dotted_names() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e.f": 3}) == {"a.b.c": 1, "a.d": [1, 2], "e.f": 3}
