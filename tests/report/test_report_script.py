"""report.py as the engines call it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.jobs import make_job, refusal, run_job
from tfnas.report.inputs import required_files
from tfnas.stages.params import Params

ROOT = Path(__file__).parents[2]


OPTIONS = ("--params", "params.yaml", "--results", "results", "--out", "results/report", "--log", "logs/report.log")
OUTPUTS = ("report.html", "summary.csv", "summary.json", "accuracies/A.csv", "accuracies/B.csv")


@pytest.fixture
def folder(make_results: Callable[..., Path], params: Params, tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    make_results(tmp_path / "results", params)
    return tmp_path


def test_the_files_are_written_and_again_the_same(folder: Path, params: Params) -> None:
    command = [sys.executable, str(ROOT / "workflow/scripts/report.py"), *OPTIONS]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    out = folder / "results/report"
    written = {name: (out / name).read_bytes() for name in OUTPUTS}
    for name in written:
        (out / name).write_text("another")  # also when it is among the results
    run_job(make_job("report", out, params, {"results": folder / "results"}))
    assert {name: (out / name).read_bytes() for name in written} == written
    provenance = json.loads((folder / "results/report/provenance.json").read_text())
    assert set(provenance["inputs"]) == {str(path) for path in required_files(params, Path("results"))}


def test_a_missing_result_is_one_line_and_nothing_is_written(folder: Path) -> None:
    (folder / "results/search/B/history.csv").unlink()
    said = refusal("report", folder, OPTIONS)
    assert said == "error: results/search/B/history.csv: is missing; run the stage that writes it\n"
    assert not (folder / "results/report").exists() and not (folder / "logs").exists()
