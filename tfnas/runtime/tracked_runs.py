"""Reading back what tracking has kept: parameters and metrics of finished jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfnas.runtime.errors import UserError
from tfnas.runtime.tracking import store_uri

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
    client = _client()
    from mlflow.exceptions import MlflowException

    try:
        return _job(client.get_run(run_id))
    except MlflowException as error:
        raise UserError(f"{run_id}: {store_uri()} has no such run ({' '.join(str(error).split())[:120]})") from None


def read_pipeline(pipeline_id: str) -> list[TrackedJob]:
    """The newest run of each job with a pipeline id; none where there is no such id."""
    client = _client()
    from mlflow.exceptions import MlflowException

    try:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        tag = f"tags.pipeline_id = '{pipeline_id}'"
        found = client.search_runs(experiments, tag, order_by=["attributes.start_time ASC"], max_results=1000)
    except MlflowException as error:
        raise UserError(f"{store_uri()}: cannot be read ({' '.join(str(error).split())[:120]})") from None
    return list({job.job: job for job in map(_job, found)}.values())


def _client() -> Any:
    import mlflow

    uri = store_uri()
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
