"""The report job: from the results folder to the page and the summary."""

from __future__ import annotations

from pathlib import Path

from tfnas.jobs.artifacts import write_text
from tfnas.report.inputs import read_results
from tfnas.report.page import render_page
from tfnas.report.summary import summarize, write_summary
from tfnas.stages.job import Job


def run_report(job: Job, folder: Path) -> None:
    """Write report.html, summary.json and summary.csv of the results in `folder` into `job.out`.

    Raises:
        UserError: a result that is missing or damaged; nothing is written then.
    """
    results = read_results(job.params, folder)
    page = render_page(results, title=job.params.report.title)
    summary = summarize(results)
    write_summary(summary, job.out)
    write_text(job.out / "report.html", page)
    for target, numbers in summary.items():
        job.run.log_metrics({f"{target}.{name}": value for name, value in numbers.items()})
