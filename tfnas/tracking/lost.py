"""Runs whose process was killed, by SIGKILL or a power cut: MLflow would show them as running forever."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mlflow

PROCESS = "tfnas.process"  # a tag: host, process id and when the process started, of the job that has the run open
SLACK_SECONDS = 2.0  # by which the start of one process may seem to differ


def this_process() -> str:
    """What `PROCESS` is set to."""
    import psutil

    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time():.0f}"


def end_lost_runs(client: mlflow.MlflowClient, experiment_id: str) -> list[str]:
    """Set runs of this host whose process is gone to KILLED; their ids. A job that resumes one opens it again.

    Runs of other hosts, and those that tfnas did not start, stay as they are.
    """
    lost = [
        run.info.run_id
        for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
        if _is_lost(run.data.tags.get(PROCESS, ""))
    ]
    for run_id in lost:
        client.set_terminated(run_id, "KILLED")
    return lost


def _is_lost(tag: str) -> bool:
    import psutil

    host, _, numbers = tag.partition(" ")
    if host != socket.gethostname():
        return False
    pid, started = numbers.split()
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) > SLACK_SECONDS
    except psutil.NoSuchProcess:
        return True
