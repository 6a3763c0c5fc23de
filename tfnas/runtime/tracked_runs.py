"""Reading back what tracking has kept: parameters and metrics of finished jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfnas.runtime.errors import UserError
from tfnas.runtime.store import explained, store_file, store_uri

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun


@dataclass(frozen=True)
class TrackedJob:
    """One run: the job's folder below `results/`, what it ran with, and the last value of each metric."""

    job: str
    params: dict[str, str]  # `targets.A.dropout` as params.yaml has it
    metrics: dict[str, float]


def read_run(run_id: str) -> TrackedJob:
    """The run of an id.

    Raises:
        UserError: the store has no such run, or cannot be opened.
    """
    uri = store_uri()
    with explained(uri):
        client = _client(uri)
        from mlflow.exceptions import MlflowException

        try:
            return _job(client.get_run(run_id))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise UserError(f"{run_id}: {uri} has no such run") from None
            raise


def read_pipeline(pipeline_id: str) -> list[TrackedJob]:
    """The newest run of each job with a pipeline id; none where there is no such id."""
    uri = store_uri()
    with explained(uri):
        client = _client(uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        tag = f"tags.pipeline_id = '{pipeline_id}'"
        found = client.search_runs(experiments, tag, order_by=["attributes.start_time ASC"], max_results=1000)
    return list({job.job: job for job in map(_job, found)}.values())


def _client(uri: str) -> Any:
    file = store_file(uri)
    if file is not None and not file.exists():  # MLflow would make an empty one
        raise UserError(f"{uri}: there is no such store; run a job first, or correct MLFLOW_TRACKING_URI")
    import mlflow

    return mlflow.MlflowClient(uri)


def _job(run: MlflowRun) -> TrackedJob:
    tags = run.data.tags
    target = tags.get("target")
    parts: Sequence[str | None] = (tags.get("stage", run.info.run_name), target, tags.get("dataset"))
    params = {
        f"targets.{target}.{name.removeprefix('target.')}" if name.startswith("target.") else name: value
        for name, value in run.data.params.items()
    }
    return TrackedJob("/".join(part for part in parts if part), params, dict(run.data.metrics))
