"""Stage report: from the results folder to the page and the summary (Tables 2, 7, 8, 9)."""

from __future__ import annotations

from pathlib import Path

from tfnas.jobs.artifacts import write_text
from tfnas.report.inputs import Results, read_results, required_files
from tfnas.report.learning import write_accuracies
from tfnas.report.page import render_page
from tfnas.report.summary import summarize, write_summary
from tfnas.stages.job import Job

ACCURACIES = "accuracies"  # the folder that `dvc plots` reads


def reads(job: Job) -> list[Path]:
    """The files that the page needs; not the whole folder, which holds `job.out`."""
    return required_files(job.params, job.inputs["results"])


def check(job: Job) -> Results:
    """All results.

    Raises:
        UserError: one is missing or damaged.
    """
    return read_results(job.params, job.inputs["results"])


def run(job: Job, results: Results) -> None:
    """Write report.html, summary.json, summary.csv and accuracies/ into `job.out`."""
    page = render_page(results, title=job.params.report.title)
    summary = summarize(results)
    write_summary(summary, job.out)
    write_text(job.out / "report.html", page)
    write_accuracies(results.targets, job.out / ACCURACIES)
    for target, numbers in summary.items():
        job.run.log_metrics({f"{target}.{name}": value for name, value in numbers.items()})
