"""The store of runs: moved with its project, named after any experiment, and why it does not open."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from tfnas.jobs.errors import UserError
from tfnas.tracking.params import TrackingParams
from tfnas.tracking.runs import tracked_run
from tfnas.tracking.store import check_file, explained, model_name, read_provenance, repair_moved_store

TRACKING = TrackingParams(experiment="test", timeout_seconds=1, max_retries=0)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with MLflow's tables, which take seconds to make."""
    import mlflow

    folder = tmp_path_factory.mktemp("template")
    mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, template: Path) -> Path:
    """A project folder with an empty store."""
    (tmp_path / "a").mkdir()
    shutil.copy(template, tmp_path / "a")
    return tmp_path / "a"


def track(folder: Path, monkeypatch, experiment: str = "test", *, model: bool = False) -> str:
    """A job in a project folder, which leaves a provenance.json there and in MLflow. Returns the run's id."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    (folder / "params.yaml").write_text("seed: 0\n")
    tracking = TRACKING.model_copy(update={"experiment": experiment})
    with tracked_run("retrain", {}, tracking, Path("params.yaml"), target="A") as run:
        text = f'{{"kind": "provenance", "format_version": 1, "run": "{run.id}"}}'
        (folder / "provenance.json").write_text(text)
        run.log_artifact(Path("provenance.json"))
        if model:
            network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
            run.log_model(network, np.zeros((1, 3, 2, 2), dtype=np.float32), alias="A")
    return str(run.id)


def move(old: Path, new: Path) -> None:
    old.rename(new)


def copy(old: Path, new: Path) -> None:
    shutil.copytree(old, new)


@pytest.mark.parametrize("carry", [move, copy])
def test_a_moved_project_keeps_its_runs_and_leaves_the_old_folder_alone(project, monkeypatch, carry) -> None:
    old, new = project, project.with_name("o'neil 100%25")
    first = track(old, monkeypatch)
    carry(old, new)
    before = sorted(old.rglob("*"))
    second = track(new, monkeypatch)
    assert sorted(old.rglob("*")) == before
    for run in (first, second):
        provenance = read_provenance(run, new)
        assert provenance is not None and provenance["run"] == run
        assert (new / "mlruns/1" / run / "artifacts/provenance.json").is_file()


def test_registered_models_of_a_moved_project_load_without_a_job(project, tmp_path, monkeypatch) -> None:
    import mlflow

    run = track(project, monkeypatch, "team/digits", model=True)
    project.rename(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/b/mlflow.db")
    repair_moved_store(Path())  # what `make ui` does
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/b/mlflow.db")
    loaded = mlflow.pyfunc.load_model("models:/team-digits@A")
    assert loaded.predict(np.zeros((2, 3, 2, 2), dtype=np.float32)).shape == (2, 3)
    assert [file.path for file in mlflow.MlflowClient().list_artifacts(run)] == ["provenance.json"]
    assert not (tmp_path / "a").exists()


def test_a_location_that_was_chosen_stays(project, tmp_path, monkeypatch) -> None:
    """As of `mlflow server --default-artifact-root`."""
    import mlflow

    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "mlruns/1").mkdir(parents=True)
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    client.create_experiment("test", artifact_location=f"{elsewhere}/mlruns/1")
    client.create_experiment("bucket", artifact_location="s3://bucket/mlruns/2")
    run = track(project, monkeypatch)
    assert (elsewhere / "mlruns/1" / run / "artifacts/provenance.json").is_file()
    bucket = client.get_experiment_by_name("bucket")
    assert bucket is not None and bucket.artifact_location == "s3://bucket/mlruns/2"


@pytest.mark.parametrize("name", ["team/digits", "a:b", "..", "/Users/x/y", "a?b", "../x", "x" * 400, "é ü"])
def test_any_experiment_gives_a_model_that_mlflow_takes(name) -> None:
    from mlflow.store.artifact.utils.models import _parse_model_uri
    from mlflow.utils.validation import _validate_model_name

    _validate_model_name(model_name(name))
    assert _parse_model_uri(f"models:/{model_name(name)}@A")[:1] == (None,)
    assert _parse_model_uri(f"models:/{model_name(name)}@A").name == model_name(name)
    assert len(model_name(name)) <= 256 and model_name("tfnas-digits") == "tfnas-digits"


@pytest.mark.parametrize("name", ["", "  ", "x" * 501, "two\nlines", "tab\t"])
def test_an_experiment_without_a_name_is_refused_early(name) -> None:
    with pytest.raises(ValueError, match="experiment"):
        TrackingParams(experiment=name, timeout_seconds=1, max_retries=0)


def delete_experiment(folder: Path) -> str:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.delete_experiment(client.create_experiment("test"))
    return f"sqlite:///{folder}/mlflow.db"


def another_schema(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffff'")
    return f"sqlite:///{folder}/mlflow.db"


def no_database(folder: Path) -> str:
    (folder / "notes.txt").write_text("no database, but more than a hundred bytes " * 10)
    return f"sqlite:///{folder}/notes.txt"


CAUSES: list[tuple[Callable[[Path], str], str]] = [
    (delete_experiment, "tracking.experiment: 'test' was deleted .*mlflow experiments restore"),
    (another_schema, "schema of another version of MLflow .found version ffff.*mlflow db upgrade"),
    (no_database, "file is not a database.*name another file"),
    (lambda folder: f"sqlite:///{folder}", "is a folder"),
    (lambda folder: f"sqlite:///{folder}/params.yaml/x.db", "takes no files"),
    (lambda folder: f"{folder}/mlruns", "mlflow migrate-filestore.*MLFLOW_ALLOW_FILE_STORE=true"),
    (lambda _: "sqlite://mlflow.db", "Invalid SQLite URL.*correct the address"),
    (lambda _: "http://127.0.0.1:9", "refused.*start the server"),
    (lambda _: "foo://127.0.0.1:9", "no address that MLflow knows"),
]


@pytest.mark.parametrize(("make", "said"), CAUSES)
def test_a_store_that_does_not_open_says_why_and_what_helps(project, monkeypatch, make, said) -> None:
    monkeypatch.chdir(project)
    (project / "params.yaml").write_text("seed: 0\n")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make(project))
    with pytest.raises(UserError, match=said) as caught, tracked_run("search", {}, TRACKING, Path("params.yaml")):
        pytest.fail("the job ran")
    assert "\n" not in str(caught.value)
    assert ("start the server" in str(caught.value)) == (
        "127.0.0.1" in make.__code__.co_consts.__repr__() and "refused" in said
    )


def test_a_missing_driver_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    uri = "postgresql://u:S3cret@127.0.0.1:9/db"
    with pytest.raises(UserError, match=r"\*\*\*@127.* driver .*pip install psycopg2-binary"), explained(uri):
        import psycopg2  # noqa: F401


def test_an_unknown_cause_is_passed_on_whole() -> None:
    with pytest.raises(UserError) as caught, explained("http://host"):
        raise RuntimeError("\n" + "long " * 100 + "end\nSQL: SELECT 1")
    assert "long end)" in str(caught.value) and "SELECT" not in str(caught.value)


def test_a_new_file_in_a_new_folder_is_fine(tmp_path) -> None:
    check_file(f"sqlite:///{tmp_path}/new/deeper/mlflow.db")
    check_file("http://127.0.0.1:9")
