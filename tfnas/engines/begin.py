"""What a Snakemake does in a project folder before it looks at any file there."""

from __future__ import annotations

import os
from pathlib import Path

from tfnas.engines.calls import SYNCING
from tfnas.engines.clock import redate_future
from tfnas.engines.dvc_project import settle_scm
from tfnas.engines.dvc_users import check_dvc_idle
from tfnas.engines.running import cancel_cluster_jobs, check_writable, enter
from tfnas.runtime.artifacts import git_trouble


def begin(folder: Path) -> list[str]:
    """Refuse where a run would go wrong, and clear away what broke the last one; lines for the user.

    Raises:
        UserError: DVC is at work; a folder cannot be written.
    """
    if SYNCING not in os.environ:
        check_dvc_idle(folder)
    check_writable(folder)
    settle_scm(folder)
    trouble = git_trouble(folder) if SYNCING not in os.environ else None
    lines = [trouble[0].upper() + trouble[1:] + "."] if trouble is not None else []
    lines += [
        f"{job} is dated in the future; the clock has jumped. It gets an earlier date." for job in redate_future(folder)
    ]
    if enter(folder):
        jobs = cancel_cluster_jobs(folder)
        ended = f" and its jobs on the cluster are ended ({', '.join(jobs)})" if jobs else ""
        lines.append(f"An earlier run was killed: its lock is cleared{ended}. Its unfinished jobs go on.")
    return lines
