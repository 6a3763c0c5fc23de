"""MLflow: one run per job. The only file that imports mlflow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.runtime.artifacts import digest_text, git_commit
from tfnas.runtime.schema import TrackingParams

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

STORE = "sqlite:///mlflow.db"


class Run:
    """The tracking run of one job."""

    def __init__(self, run_id: str | None) -> None:
        self.id = run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers, with the epoch they belong to."""
        import mlflow

        mlflow.log_metrics(dict(metrics), step=step)

    def log_artifact(self, path: Path) -> None:
        """A small file."""
        import mlflow

        mlflow.log_artifact(str(path))

    def log_model(self, network: nn.Module, example: np.ndarray) -> None:
        """A trained network with its signature, inferred from an (N, 3, H, W) float32 example."""
        raise NotImplementedError


@contextmanager
def tracked_run(
    stage: str,
    values: Mapping[str, Any],
    tracking: TrackingParams,
    params_file: Path,
    *,
    target: str | None = None,
    dataset: str | None = None,
) -> Iterator[Run]:
    """A run named after the job, tagged with stage, target, dataset, commit and pipeline id."""
    import mlflow

    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", STORE))
    mlflow.set_experiment(tracking.experiment)
    name = "-".join(part for part in (stage, target, dataset) if part)
    with mlflow.start_run(run_name=name) as run:
        commit = git_commit()
        pipeline = digest_text(commit + params_file.read_text())[:12]
        mlflow.set_tags({"stage": stage, "git_commit": commit, "pipeline_id": pipeline})
        mlflow.log_params(dict(values))
        yield Run(run.info.run_id)
