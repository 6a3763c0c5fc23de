"""Where MLflow's runs are kept: the address, what keeps it from opening, artifacts that moved with their project.

And reading the runs back: for the user only, no stage reads them.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import re
import shlex
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from tfnas.jobs.artifacts import PROVENANCE, read_json
from tfnas.jobs.checkpoints import project_folder
from tfnas.jobs.errors import HIDDEN, UserError, explain_disk, reason_of, redact

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities import Run as MlflowRun

VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
STORE = f"{SQLITE}mlflow.db"
LOCK = "mlflow.db.lock"
ARTIFACTS = "mlruns"  # of the working directory in which MLflow makes a store
LONGEST_MODEL_NAME = 250

_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_DRIVERS = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # package of a module that is named differently
UI = "http://127.0.0.1:5000"


def store_uri(folder: Path | None = None) -> str:
    """Where the jobs of a project are tracked: MLFLOW_TRACKING_URI, or mlflow.db; a relative file is the project's.

    Args:
        folder: of the project; None for the one that this job belongs to.
    """
    uri = os.environ.get(VARIABLE) or STORE
    if not uri.startswith(SQLITE):
        return uri
    return f"{SQLITE}{(project_folder() if folder is None else folder.absolute()) / uri.removeprefix(SQLITE)}"


def store_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


@contextmanager
def explained(uri: str, experiment: str = "") -> Iterator[None]:
    """Errors of a store that is opened or read become one line that fits the cause.

    MLflow passes on what requests, SQLAlchemy, Alembic and database drivers raise, so any type may come.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (disk := explain_disk(error)) is not None:
            raise disk from None
        raise UserError(_explain(error, uri, experiment)) from None


def check_file(uri: str) -> None:
    """A SQLite file that cannot be opened: MLflow would try for minutes.

    Raises:
        UserError: the path is a folder, or lies below a file.
    """
    file = store_file(uri)
    if file is None:
        return
    if not uri.removeprefix(SQLITE) or file.is_dir():
        raise UserError(f"{_subject(uri)} is a folder; write {SQLITE} and the name of a file")
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{_subject(uri)}: {folder} takes no files; make it a folder you may write, or name another")


def model_name(experiment: str) -> str:
    """The registered model of an experiment: its name, with `-` for what MLflow refuses there or in `models:/` URIs."""
    name = re.sub(r"[/:?\x00-\x1f]", "-", experiment).strip()[:LONGEST_MODEL_NAME]
    return name if posixpath.normpath(name) == name and not name.startswith("..") and name != "." else f"model-{name}"


def follow_move(uri: str, folder: Path) -> None:
    """Point a SQLite store at the artifacts in the project's folder, where that was moved, copied or renamed.

    MLflow writes absolute locations and offers nothing to change them: a moved project would bring back its old folder
    and no longer find its own files. One that MLflow has put elsewhere, `--default-artifact-root`, stays. To be called
    under the lock of the store; a store without MLflow's tables is left alone.
    """
    file = store_file(uri)
    if file is None or not file.is_file():
        return
    inside = file.resolve().is_relative_to(folder)
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=20)) as database, database:
        rows = database.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        for number, old in rows:
            new = f"{_as_location(folder)}/{ARTIFACTS}/{number}"
            made_by_default = old.startswith("/") and old.endswith(f"/{ARTIFACTS}/{number}")
            if made_by_default and old != new and _belongs_here(old, new, inside=inside):
                for table, column in _LOCATIONS:
                    _replace_prefix(database, table, column, old, new)


def repair_moved_store(folder: Path) -> None:
    """`follow_move` before something reads a store; one that cannot be changed is read as it is."""
    try:
        with (folder / LOCK).open("a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            follow_move(store_uri(folder), folder.resolve())
    except (OSError, sqlite3.Error):
        pass


def _belongs_here(old: str, new: str, *, inside: bool) -> bool:
    """Whether artifacts recorded at `old` are those at `new`; a store outside of the project may serve others, too."""
    is_here, is_there = (Path(unquote(location)).exists() for location in (new, old))
    return is_here or not is_there if inside else is_here and not is_there


def _as_location(folder: Path) -> str:
    """A path as MLflow reads it back: it decodes percent signs."""
    return folder.as_posix().replace("%", "%25")


def _replace_prefix(database: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    database.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )


def _subject(uri: str) -> str:
    return f"{VARIABLE}: {uri}" if os.environ.get(VARIABLE) else uri.removeprefix(SQLITE)


def _explain(error: Exception, uri: str, experiment: str) -> str:
    """One line: what is wrong, and the fix that fits."""
    reason, code = reason_of(error), getattr(error, "error_code", "")
    subject = _subject(uri)
    if "deleted experiment" in reason:
        return (
            f"tracking.experiment: {experiment!r} was deleted in {uri}; write another name, or restore it with `mlflow"
            " experiments restore --experiment-id ID` (`mlflow experiments search --view deleted_only` tells the id)"
        )
    if "maintenance mode" in reason:
        return (
            f"{subject} is a folder of files, which MLflow no longer takes: write {STORE}, move old runs to it with"
            " `mlflow migrate-filestore`, or set MLFLOW_ALLOW_FILE_STORE=true"
        )
    if "database schema" in reason or "locate revision" in reason:
        versions = " ".join(re.findall(r"\(found version [^)]*\)", reason))
        return (
            f"{subject} has the schema of another version of MLflow {versions}: back it up and run `mlflow db upgrade"
            " URI`; where a newer MLflow has written it, install that one"
        )
    if isinstance(error, ImportError):
        module = (error.name or "").partition(".")[0]
        package = _DRIVERS.get(module, module)
        return f"{subject} needs a driver that is not installed ({reason}): pip install {package or 'it'}"
    if "unsupported URI" in reason or "load plugin" in reason:
        return f"{subject} is no address that MLflow knows; write http(s)://, {SQLITE}, postgresql:// or mysql://"
    return f"{subject} cannot be opened ({reason}); {_advice(reason, code)}{_way_out()}"


def _advice(reason: str, code: str) -> str:
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or re.search(r"error code 40[13]\b", reason):
        return "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    if "valid JSON format" in reason or re.search(r"error code \d+", reason):
        return "check that an MLflow server has this address"
    if "Invalid" in reason:
        return "correct the address"
    if re.search(r"failed with exception|refused|timed? ?out|could not (connect|translate)", reason):
        return "start the server"
    if "not a database" in reason or "malformed" in reason:
        return "name another file, or restore this one from a backup"
    if "readonly" in reason or "read-only" in reason:
        return "make the file and its folder writable"
    return "correct the address" if os.environ.get(VARIABLE) else "move the file away to begin another"


def _way_out() -> str:
    return f", or unset {VARIABLE} to use {STORE}" if os.environ.get(VARIABLE) else ""


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
    parts: Sequence[str | None] = (
        tags.get("stage", run.info.run_name),
        target,
        tags.get("dataset"),
        tags.get("network"),
    )
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


if __name__ == "__main__":  # `make ui`, which opens the project's own store
    os.environ.pop(VARIABLE, None)
    repair_moved_store(Path())
