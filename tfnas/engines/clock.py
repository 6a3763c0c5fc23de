"""Results dated in the future, after the clock has jumped.

Snakemake takes a result that is newer than its inputs as done. One from the future would be newer than every edit to
come.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tfnas.runtime.artifacts import SNAKEMAKE_MARK

SLACK_SECONDS = 5.0  # between the clocks of machines that share a disk
LONG_AGO = 946684800.0  # 2000-01-01: older than any input


def redate_future(folder: Path) -> list[str]:
    """Date jobs' results that lie in the future as the newest one that does not; to be called before any job runs.

    Inputs that were changed since then are newer now, and Snakemake compares their digests with those it noted.

    Returns:
        Folders of the jobs.
    """
    jobs = {path.parent: path.stat().st_mtime for path in _provenances(folder)}
    now = time.time() + SLACK_SECONDS
    future = [job for job, date in jobs.items() if date > now]
    if not future:
        return []
    dates = (path.stat().st_mtime for job in jobs if job not in future for path in _dated(job))
    date = max((date for date in dates if date <= now), default=LONG_AGO)
    for job in future:
        for path in _dated(job):
            os.utime(path, (date, date))
    return [str(job.relative_to(folder)) for job in future]


def _dated(job: Path) -> Iterator[Path]:
    """A job's outputs; of folders the mark as well, by which Snakemake dates them."""
    for path in job.iterdir():
        yield path
        if (mark := path / SNAKEMAKE_MARK).exists():
            yield mark


def _provenances(folder: Path) -> Iterator[Path]:
    """The file that each job writes last; not a walk through folders of images."""
    for depth in ("*", "*/*", "*/*/*"):
        yield from (folder / "results").glob(f"{depth}/provenance.json")
