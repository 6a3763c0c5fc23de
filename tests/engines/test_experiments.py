"""DVC's experiments on this pipeline: in place and queued, compared, and found again in MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest
import yaml

from tests.helpers.engines.calls import call, planned_by_snakemake
from tests.helpers.projects import ROOT, script_of
from tfnas.cli import main
from tfnas.stages.registry import STAGES

pytestmark = pytest.mark.slow

# The report's file, with the real job around it: it tracks, and leaves the folder for DVC to remove.
TRACKED = """
def reads(job):
    return []

def check(job):
    return job.params.report.title

def run(job, title):
    for name in ("report.html", "summary.csv"):
        (job.out / name).write_text(title)
    (job.out / "accuracies").mkdir()
    (job.out / "accuracies" / "A.csv").write_text(title)
    (job.out / "summary.json").write_text('{"letters": %d}' % len(title))
"""
# Seen only when the library beside the script is imported.
MARK = """
import os, pathlib
if "DVC_EXP_NAME" in os.environ:
    pathlib.Path(os.environ["DVC_ROOT"], "own_library").touch()
"""


def test_an_experiment_in_place_is_compared_and_undone(finished, capsys) -> None:
    shipped = yaml.safe_load((finished / "params.yaml").read_text())["search"]["lambda"]
    call(finished, "dvc", "exp", "run", "--quiet", "--name", "strong", "--set-param", "search.lambda=0.2")
    assert planned_by_snakemake(finished) == set()
    assert "search.lambda" in call(finished, "dvc", "params", "diff")
    assert "results/search/A/metrics.json" in call(finished, "dvc", "metrics", "diff")
    assert "index.html" in call(finished, "dvc", "plots", "diff")
    assert "strong" in call(finished, "dvc", "exp", "show", "--csv")

    call(finished, "git", "checkout", "--quiet", ".")
    assert main(["restore", "--folder", str(finished)]) == 0
    capsys.readouterr()
    assert main(["compare-runs", "HEAD", "strong", "--folder", str(finished)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[1:4] for row in rows if row[:1] == ["params"]] == [["search.lambda", f"{shipped:g}", "0.2"]]
    assert "search/A.value" in [row[1] for row in rows if row[:1] == ["metrics"]]


def test_a_queued_experiment_runs_its_own_code_and_is_tracked_in_the_project(finished) -> None:
    shutil.copy(ROOT / STAGES["report"].script, script_of(finished, "report"))
    (finished / "tfnas" / "stages" / "report.py").write_text(TRACKED)
    with (finished / "tfnas" / "__init__.py").open("a") as file:
        file.write(MARK)
    call(finished, "git", "commit", "--quiet", "--all", "--message", "tracked")
    queue = ("dvc", "exp", "run", "--quiet", "--queue", "--name", "longer", "--set-param", "report.title=longer")
    call(finished, *queue)
    call(finished, "dvc", "exp", "run", "--run-all")

    client = mlflow.MlflowClient(f"sqlite:///{finished}/mlflow.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert (run.info.run_name, run.info.status) == ("longer: report", "FINISHED")
    assert run.data.tags["dvc_experiment"] == "longer"
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(finished) and (artifacts / "summary.csv").read_text() == "longer"
    assert (finished / "own_library").exists()
    assert "longer" in call(finished, "dvc", "exp", "show", "--csv")
    call(finished, "dvc", "exp", "apply", "--quiet", "longer")
    assert (finished / "results" / "report" / "report.html").read_text() == "longer"
    assert planned_by_snakemake(finished) == set()
