"""The tracking store fails in the middle: the job goes on, and the store has everything in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tfnas.jobs.artifacts import write_json
from tfnas.tracking import outbox
from tfnas.tracking.params import TrackingParams
from tfnas.tracking.runs import tracked_run

TRACKING = TrackingParams(experiment="test", timeout_seconds=1, max_retries=0)
PORT = 15987


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    (tmp_path / "history.csv").write_text("epoch\n")
    return tmp_path


def run_job(begins: int, ends: int, monkeypatch) -> str:
    """A job of six epochs; the store takes nothing from one epoch until another. Returns its run's id."""
    import mlflow
    from mlflow.exceptions import MlflowException

    def fail(*_: object, **__: object) -> None:
        raise MlflowException("the server is gone")

    with monkeypatch.context() as patch, tracked_run("search", {}, TRACKING, Path("params.yaml")) as run:
        for epoch in range(1, 7):
            if epoch == begins:
                for name in ("log_batch", "log_artifact", "set_terminated"):
                    patch.setattr(mlflow.MlflowClient, name, fail)
            if epoch == ends:
                patch.undo()
            run.log_metrics({"loss": 1.0 / epoch}, step=epoch)
        run.log_artifact(Path("history.csv"))
    return str(run.id)


def epochs(run_id: str) -> list[int]:
    import mlflow

    return [metric.step for metric in mlflow.MlflowClient().get_metric_history(run_id, "loss")]


@pytest.mark.parametrize("pause", [0.0, 1000.0])
def test_metrics_of_an_outage_arrive_when_it_is_over(folder, monkeypatch, pause) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE_SECONDS", pause)
    run_id = run_job(2, 5, monkeypatch)
    assert epochs(run_id) == [1, 2, 3, 4, 5, 6]
    assert not list(folder.glob("mlflow-unsent/*"))


def test_an_outage_that_lasts_is_made_up_for_by_the_next_job(folder, monkeypatch, caplog) -> None:
    import mlflow

    run_id = run_job(3, 99, monkeypatch)
    assert epochs(run_id) == [1, 2]
    assert f"mlflow-unsent/{run_id}.json: keeps what MLflow did not take; the next job sends it" in caplog.text
    with tracked_run("retrain", {}, TRACKING, Path("params.yaml")):
        assert epochs(run_id) == [1, 2, 3, 4, 5, 6]
    client = mlflow.MlflowClient()
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run_id)] == ["history.csv"]
    assert not list(folder.glob("mlflow-unsent/*"))


def test_files_of_an_unwritable_location_are_kept_and_sent_later(folder, monkeypatch, caplog) -> None:
    import mlflow

    def tracked(text: str) -> str:
        (folder / "history.csv").write_text(text)
        with tracked_run("search", {}, TRACKING, Path("params.yaml")) as run:
            run.log_artifact(Path("history.csv"))
        (folder / "history.csv").write_text("of a later job\n")  # as Snakemake does, which removes it first
        return str(run.id)

    caplog.set_level("INFO", logger="tfnas.tracking")
    (folder / "mlruns").write_text("a file where the artifacts would go")
    runs = {tracked(text): text for text in ("first\n", "second\n")}
    assert "sent to MLflow" not in caplog.text and "next job" in caplog.text
    assert not any(mlflow.MlflowClient().get_run(run).info.status == "RUNNING" for run in runs)
    (folder / "mlruns").unlink()
    runs[tracked("third\n")] = "third\n"
    assert caplog.text.count("1 of 1 entries sent to MLflow") == 2
    for run, text in runs.items():
        assert Path(mlflow.MlflowClient().download_artifacts(run, "history.csv", str(folder))).read_text() == text
    assert not list(folder.glob("mlflow-unsent/*"))


def test_a_file_that_is_gone_is_not_called_sent(tmp_path, caplog) -> None:
    caplog.set_level("INFO", logger="tfnas.tracking")
    sent: list[outbox.Entry] = []
    entries = [{"artifact": "results/gone.json"}, {"metrics": {"loss": 1.0}, "step": 1}]
    write_json(tmp_path / "mlflow-unsent/run.json", {"kind": "unsent", "format_version": 1, "entries": entries})
    outbox.send_kept(lambda _, entry: sent.append(entry), tmp_path / "mlflow-unsent")
    assert [entry.metrics for entry in sent] == [{"loss": 1.0}]
    assert "results/gone.json: is gone; run run in MLflow stays without it" in caplog.text
    assert "1 of 2 entries sent" in caplog.text


def test_a_deleted_run_holds_up_no_other(folder, monkeypatch, caplog) -> None:
    import mlflow

    with monkeypatch.context() as patch:  # else the second job sends what the first has left
        patch.setattr("tfnas.tracking.runs.send_kept", lambda *_: None)
        first, second = sorted(run_job(3, 99, monkeypatch) for _ in range(2))
    mlflow.MlflowClient().delete_run(first)
    with tracked_run("retrain", {}, TRACKING, Path("params.yaml")):
        assert epochs(second) == [1, 2, 3, 4, 5, 6]
    assert f"mlflow-unsent/{first}.json: not sent" in caplog.text


def test_an_outage_costs_one_try_a_pause(monkeypatch, tmp_path) -> None:
    clock, tries = [0.0], []

    def send(*_: object) -> None:
        tries.append(clock[0])
        raise OSError("no route")

    monkeypatch.setattr(outbox.time, "monotonic", lambda: clock[0])
    waiting = outbox.Outbox("run", send, tmp_path / "mlflow-unsent")
    for second in range(3600):
        clock[0] = float(second)
        waiting.put(outbox.Entry(metrics={"loss": 1.0}, step=second))
    assert tries == [0.0, 30.0, 90.0, 210.0, 450.0, 930.0, 1530.0, 2130.0, 2730.0, 3330.0]


def serve(folder: Path) -> subprocess.Popen[bytes]:
    """An MLflow server, once it answers."""
    store = f"sqlite:///{folder}/server.db"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(PORT)]
    server = subprocess.Popen([*command, "--workers", "1"], cwd=folder, start_new_session=True)
    until = time.monotonic() + 240  # on a busy machine
    while time.monotonic() < until:
        try:
            urlopen(f"http://127.0.0.1:{PORT}/health").close()
            return server
        except (URLError, ConnectionError):
            time.sleep(0.2)
    stop(server)  # it would keep the port from the next test
    raise AssertionError("the server did not start")


def stop(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.mark.slow
def test_a_server_that_is_killed_has_everything_when_it_is_back(folder, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{PORT}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # on a busy machine; a killed server refuses at once
    server = serve(folder)
    try:
        with tracked_run("search", {}, TRACKING, Path("params.yaml")) as run:
            for epoch in range(1, 7):
                if epoch == 3:
                    stop(server)
                run.log_metrics({"loss": 1.0 / epoch}, step=epoch)
        server = serve(folder)
        with tracked_run("retrain", {}, TRACKING, Path("params.yaml")):
            assert epochs(str(run.id)) == [1, 2, 3, 4, 5, 6]
    finally:
        stop(server)
