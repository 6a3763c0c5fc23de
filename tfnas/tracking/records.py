"""Reading back what MLflow holds of a job's run: for the user, no stage reads from it."""

from __future__ import annotations

import os
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.jobs.artifacts import read_json
from tfnas.jobs.errors import UserError
from tfnas.jobs.redaction import HIDDEN, redact
from tfnas.tracking.store import explained, repair_moved_store, store_file, store_uri

if TYPE_CHECKING:
    import mlflow

PROVENANCE = "provenance.json"
UI = "http://127.0.0.1:5000"


@dataclass(frozen=True)
class RunRecord:
    """A run as MLflow holds it."""

    name: str
    status: str  # FINISHED, FAILED, KILLED, RUNNING
    tags: dict[str, str]  # stage, target, data set, commit, pipeline id
    link: str  # the page of the run
    command: str | None  # that serves the page; None for a server


def read_run(run_id: str, folder: Path) -> RunRecord | None:
    """The run in the store that the jobs of a project folder write to; None where it has no such run.

    Raises:
        UserError: the store does not answer.
    """
    uri = store_uri(folder)
    file = store_file(uri)
    if file is not None and not file.exists():
        return None  # MLflow would make an empty one
    with explained(uri):
        from mlflow.exceptions import MlflowException

        try:
            run = _client(uri).get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
    local, page = file is not None, redact(uri).replace(f"{HIDDEN}@", "").rstrip("/")
    return RunRecord(
        name=run.info.run_name or "",
        status=run.info.status,
        tags={key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
        link=f"{UI if local else page}/#/experiments/{run.info.experiment_id}/runs/{run_id}",
        command=f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if local else None,
    )


def read_provenance(run_id: str, folder: Path) -> dict[str, Any] | None:
    """The provenance.json that a run holds; None where its job has not ended well."""
    from mlflow.exceptions import MlflowException

    repair_moved_store(folder)
    client = _client(store_uri(folder))
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return read_json(client.download_artifacts(run_id, PROVENANCE, temporary), kind="provenance", version=1)
        except (MlflowException, OSError, UserError):
            return None


def _client(uri: str) -> mlflow.MlflowClient:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    return mlflow.MlflowClient(uri)
