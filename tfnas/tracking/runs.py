"""One MLflow run per job. Only this file writes to MLflow; `records` reads."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.jobs.artifacts import atomic_path, digest_text, git_commit
from tfnas.jobs.checkpoints import experiment_name, project_folder
from tfnas.jobs.errors import reason_of
from tfnas.jobs.sections import flatten
from tfnas.tracking.lost import PROCESS, end_lost_runs, this_process
from tfnas.tracking.outbox import FOLDER, Entry, Outbox, send_kept
from tfnas.tracking.params import TrackingParams
from tfnas.tracking.store import LOCK, SQLITE, check_file, explained, follow_move, model_name, store_file, store_uri

if TYPE_CHECKING:
    import mlflow
    import numpy as np
    from torch import nn

logger = logging.getLogger("tfnas.tracking")


class Run:
    """The tracking run of one job.

    Once it is open, a failing store is only a warning in the log: a job that has computed for a day must not end
    because of it. Metrics and files are sent later, by this job or the next one (`tfnas.tracking.outbox`); every
    metric is in the job's own files as well.
    """

    def __init__(self, run_id: str | None, outbox: Outbox | None = None, *, last_step: int = 0) -> None:
        self.id = run_id
        self._outbox = outbox
        self._last_step = last_step

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers and their epoch; epochs that a resumed run already has are skipped."""
        assert self._outbox is not None
        if step is None or step > self._last_step:
            self._outbox.put(Entry(metrics=dict(metrics), step=step or 0, milliseconds=round(1000 * time.time())))

    def log_artifact(self, path: Path) -> None:
        """A small file."""
        assert self._outbox is not None
        self._outbox.put(Entry(artifact=str(path)))

    def log_model(self, network: nn.Module, example: np.ndarray, *, alias: str | None = None) -> None:
        """A trained network in evaluation mode, on the CPU, with its signature: (N, 3, H, W) float32 to logits.

        It is stored as an exported program (pt2), which runs no code from the file when it is loaded.

        Args:
            alias: also register it as the newest version of the experiment's model (`store.model_name`), and move
                this alias to it: `models:/tfnas-digits@A` is target A's network. Ignored in a DVC experiment: of many
                experiments, the last one would hold the alias.
        """
        if experiment_name() is not None:
            alias = None
        _unless_it_fails("the model", lambda: _log_model(network, example, alias))


class NoRun(Run):
    """Tracks nothing: for all processes of a job but the first."""

    def __init__(self) -> None:
        super().__init__(None)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        pass

    def log_artifact(self, path: Path) -> None:
        pass

    def log_model(self, network: nn.Module, example: np.ndarray, *, alias: str | None = None) -> None:
        pass


@contextmanager
def tracked_run(
    stage: str,
    values: Mapping[str, Any],
    tracking: TrackingParams,
    params_file: Path,
    *,
    target: str | None = None,
    dataset: str | None = None,
    network: str | None = None,
    tags: Mapping[str, str] | None = None,
    resumes: str | None = None,
) -> Iterator[Run]:
    """A run named after the job, tagged with stage, target, dataset, network, commit, pipeline id and DVC experiment.

    All jobs of one commit and one parameter file share a pipeline id. Parameters of the job's own target are logged as
    `target.*`, so that runs of two targets can be compared row by row. The runs of a DVC experiment are prefixed with
    its name, and are kept in the project's store, wherever DVC runs them. Runs that killed jobs left open are ended.

    Args:
        tags: more tags; `name` among them takes the place of target, dataset and network in the run's name.
        resumes: id of an interrupted run of the same job, which is continued if the store still has it.

    Raises:
        UserError: the store cannot be opened within the seconds that `tracking` allows.
    """
    _configure(tracking)
    uri = store_uri()
    with explained(uri, tracking.experiment):
        _open_store(uri, tracking)
    import mlflow

    more = dict(tags or {})
    parts = (stage, target, dataset, network) if "name" not in more else (stage, more.pop("name"))
    name = "-".join(part for part in parts if part)
    if (experiment := experiment_name()) is not None:
        name = f"{experiment}: {name}"
    _unless_it_fails("the end of killed jobs", lambda: _end_lost_runs(tracking.experiment))
    commit = git_commit()
    pipeline = digest_text(commit + params_file.read_text(encoding="utf-8"))[:12]
    known = {"stage": stage, "target": target, "dataset": dataset, "network": network}
    known |= {"git_commit": commit, "pipeline_id": pipeline, "dvc_experiment": experiment, PROCESS: this_process()}
    known |= more
    if resumes is not None and (last_step := _last_step(resumes, tracking.experiment)) is not None:
        with explained(uri):
            run = mlflow.start_run(run_id=resumes, tags={PROCESS: this_process()})
        with _outlives_outage(run) as outbox:
            yield Run(resumes, outbox, last_step=last_step)
        return
    with explained(uri):
        run = mlflow.start_run(run_name=name, tags={key: value for key, value in known.items() if value})
    with _outlives_outage(run) as outbox:
        comparable = {key.replace(f"targets.{target}.", "target."): value for key, value in values.items()}
        _unless_it_fails("the parameters", lambda: mlflow.log_params(flatten(comparable)))
        yield Run(run.info.run_id, outbox)


@contextmanager
def _outlives_outage(run: mlflow.ActiveRun) -> Iterator[Outbox]:
    """The run's outbox; the run ends with the block, and an unreachable store raises nothing."""
    import mlflow

    outbox, status = Outbox(run.info.run_id, _send, project_folder().absolute() / FOLDER), "FAILED"
    try:
        yield outbox
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        outbox.flush()
        try:
            mlflow.end_run(status)
        except Exception:  # of any library that a store uses
            outbox.put(Entry(status=status))
        outbox.close()


def _end_lost_runs(name: str) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None  # `_open_store` made it
    for run_id in end_lost_runs(client, experiment.experiment_id):
        logger.info("MLflow run %s, of a job that was killed: ended as KILLED", run_id)


def _send(run_id: str, entry: Entry) -> None:
    import mlflow
    from mlflow.entities import Metric

    client = mlflow.MlflowClient()
    if entry.metrics:
        metrics = [Metric(key, value, entry.milliseconds, entry.step) for key, value in entry.metrics.items()]
        client.log_batch(run_id, metrics=metrics)
    if entry.artifact is not None:
        client.log_artifact(run_id, entry.artifact)
    if entry.status is not None:
        client.set_terminated(run_id, entry.status)


def _last_step(run_id: str, experiment: str) -> int | None:
    """The largest step of a run's metrics, 0 without any; None where the experiment does not have the run any more."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        run = client.get_run(run_id)
        kept_in = client.get_experiment(run.info.experiment_id).name
        if run.info.lifecycle_stage != "active" or kept_in != experiment:
            return None
        name = next(iter(run.data.metrics), None)
        return max((metric.step for metric in client.get_metric_history(run_id, name)), default=0) if name else 0
    except MlflowException:
        return None


def _configure(tracking: TrackingParams) -> None:
    """No telemetry, few and short tries to reach a server; variables that the user has set are kept."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(tracking.max_retries))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(tracking.timeout_seconds))
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent"):  # a line per table of a new store
        logging.getLogger(name).setLevel(logging.WARNING)


def _open_store(uri: str, tracking: TrackingParams) -> None:
    """Create or migrate the store and the experiment, one job at a time.

    Jobs that create a SQLite store at the same time break each other's migration. A new store is made under another
    name and then renamed: one that was killed half migrated would never open again.
    """
    check_file(uri)
    import mlflow

    if not uri.startswith("http"):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = tracking.max_retries + 1  # its own ten tries of a database take two minutes
    with chdir(project_folder()), Path(LOCK).open("a") as lock:  # MLflow puts artifacts below the working directory
        fcntl.lockf(lock, fcntl.LOCK_EX)
        if (file := store_file(uri)) is not None and not file.exists():
            with atomic_path(file) as temporary:
                mlflow.set_tracking_uri(f"{SQLITE}{temporary}")
                mlflow.set_experiment(tracking.experiment)
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(tracking.experiment)
        follow_move(uri, Path.cwd())
        send_kept(_send, Path.cwd() / FOLDER)


def _unless_it_fails(what: str, log: Callable[[], object]) -> None:
    try:
        log()
    except Exception as error:  # of any library that a store uses
        logger.warning("MLflow did not take %s (%s); the job goes on", what, reason_of(error))


def _log_model(network: nn.Module, example: np.ndarray, alias: str | None) -> None:
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    batch = np.repeat(example, 2, axis=0)  # torch.export makes a batch of 1 a constant
    with torch.inference_mode():
        logits = network(torch.from_numpy(batch)).numpy()
    signature = ModelSignature(
        inputs=Schema([TensorSpec(batch.dtype, (-1, *batch.shape[1:]))]),
        outputs=Schema([TensorSpec(logits.dtype, (-1, *logits.shape[1:]))]),
    )
    logged = mlflow.pytorch.log_model(
        network,
        name="model",
        signature=signature,
        input_example=batch,
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
    )
    if alias is not None:
        client = mlflow.MlflowClient()
        run = mlflow.active_run()
        assert run is not None
        name = model_name(client.get_experiment(run.info.experiment_id).name)
        version = mlflow.register_model(logged.model_uri, name)
        client.set_registered_model_alias(name, model_alias(alias), version.version)
        logger.info("registered as models:/%s@%s", name, model_alias(alias))


def model_alias(target: str) -> str:
    """The alias of a target's registered model: its name, with `target-` before one that MLflow keeps for itself."""
    return f"target-{target}" if re.fullmatch(r"latest|v\d+", target, re.IGNORECASE) else target
