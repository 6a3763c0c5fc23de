"""Reading MLflow's runs back: for the user only, no stage reads them."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.jobs.artifacts import PROVENANCE, read_json
from tfnas.jobs.errors import UserError
from tfnas.jobs.redaction import HIDDEN, redact
from tfnas.tracking.store import explained, repair_moved_store, store_file, store_uri

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities import Run as MlflowRun

UI = "http://127.0.0.1:5000"


@dataclass(frozen=True)
class RunRecord:
    """A run as MLflow holds it, and where to look at it."""

    name: str
    status: str  # FINISHED, FAILED, KILLED, RUNNING
    tags: dict[str, str]  # stage, target, data set, commit, pipeline id
    link: str  # the page of the run
    command: str | None  # that serves the page; None for a server


@dataclass(frozen=True)
class TrackedJob:
    """The job of a run: its folder below `results/`, what it ran with, and the last value of each metric."""

    job: str
    params: dict[str, str]  # `targets.A.dropout` as params.yaml has it
    metrics: dict[str, float]


def read_run(run_id: str, folder: Path) -> RunRecord | None:
    """The run in the store that the jobs of a project folder write to; None where it has no such run.

    Raises:
        UserError: the store does not answer.
    """
    uri = store_uri(folder)
    if not _exists(uri) or (run := _find_run(run_id, uri)) is None:
        return None
    local, page = store_file(uri) is not None, redact(uri).replace(f"{HIDDEN}@", "").rstrip("/")
    return RunRecord(
        name=run.info.run_name or "",
        status=run.info.status,
        tags={key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
        link=f"{UI if local else page}/#/experiments/{run.info.experiment_id}/runs/{run_id}",
        command=f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if local else None,
    )


def read_job(run_id: str) -> TrackedJob:
    """The job of a run in this project's store.

    Raises:
        UserError: the store has no such run, or cannot be opened.
    """
    uri = store_uri()
    if (run := _find_run(run_id, uri)) is None:
        raise UserError(f"{run_id}: {uri} has no such run")
    return _job(run)


def read_pipeline(pipeline_id: str) -> list[TrackedJob]:
    """The newest run of each job with a pipeline id; none where there is no such id.

    Raises:
        UserError: the store cannot be opened.
    """
    uri = store_uri()
    with explained(uri):
        client = _client(uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        tag = f"tags.pipeline_id = '{pipeline_id}'"
        found = client.search_runs(experiments, tag, order_by=["attributes.start_time ASC"], max_results=1000)
    return list({job.job: job for job in map(_job, found)}.values())


def read_provenance(run_id: str, folder: Path) -> dict[str, Any] | None:
    """The provenance.json that a run holds; None where its job did not succeed."""
    from mlflow.exceptions import MlflowException

    repair_moved_store(folder)
    client = _client(store_uri(folder))
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return read_json(client.download_artifacts(run_id, PROVENANCE, temporary), kind="provenance", version=1)
        except (MlflowException, OSError, UserError):
            return None


def _find_run(run_id: str, uri: str) -> MlflowRun | None:
    with explained(uri):
        client = _client(uri)
        from mlflow.exceptions import MlflowException

        try:
            return client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def _job(run: MlflowRun) -> TrackedJob:
    tags = run.data.tags
    target = tags.get("target")
    parts: Sequence[str | None] = (tags.get("stage", run.info.run_name), target, tags.get("dataset"))
    params = {
        f"targets.{target}.{name.removeprefix('target.')}" if name.startswith("target.") else name: value
        for name, value in run.data.params.items()
    }
    return TrackedJob("/".join(part for part in parts if part), params, dict(run.data.metrics))


def _client(uri: str) -> mlflow.MlflowClient:
    if not _exists(uri):
        raise UserError(f"{uri}: there is no such store; run a job first, or correct MLFLOW_TRACKING_URI")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    return mlflow.MlflowClient(uri)


def _exists(uri: str) -> bool:
    """Whether there is a store: MLflow would create a missing SQLite file, empty."""
    file = store_file(uri)
    return file is None or file.exists()
