"""Snakemake finds nothing to mend in the Snakefile, and writes its own report of a run, in one file."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers.engines.calls import call, snakemake
from tests.helpers.engines.resolved_jobs import dvc_jobs
from tests.helpers.engines.stub_stage import parse, run
from tfnas.stages.registry import STAGES


def test_lint_finds_nothing(project: Path) -> None:
    assert "your workflow is in a good condition" in call(project, "snakemake", "--lint")


def test_the_report_holds_the_marked_files_and_their_captions(project: Path, monkeypatch) -> None:
    monkeypatch.chdir(project)
    for name, job in dvc_jobs(project).items():
        run(name.partition("@")[0], parse(job.command.split()[2:]), project)
    snakemake(project, "--touch", "--forceall")
    call(project, "snakemake", "--report", "report.html")
    page = (project / "report.html").read_text()
    for category in ("Overview", "Classes", "Latency table", "Search", "Networks", "Training"):
        assert category in page
    captions = {path.stem for path in (project / "workflow" / "report").glob("*.rst")}
    used = re.findall(r"workflow/report/(\w+)\.rst", (project / "Snakefile").read_text())
    used += [output.caption for stage in STAGES.values() for output in stage.outputs if output.caption]
    assert captions == set(used)
    assert "one row per epoch" in page and "The network of target A" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?:", page)
