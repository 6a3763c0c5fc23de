"""What every script shares: checks before work, a log, provenance; one line for a user's mistake."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tfnas.jobs.errors import UserError
from tfnas.stages.job import open_job, run_script, stage_parser

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def options(tmp_path, monkeypatch) -> argparse.Namespace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "in.csv").write_text("a\n")
    return stage_parser("report", "").parse_args(["--params", str(PARAMS), "--out", "out", "--log", "logs/report.log"])


def test_a_job_leaves_log_and_provenance(options) -> None:
    with open_job("report", options, inputs=[Path("in.csv")], outputs=["page.html"]) as job:
        (job.out / "page.html").write_text("x")
    provenance = json.loads(Path("out/provenance.json").read_text())
    assert set(provenance["inputs"]) == {"in.csv"} and set(provenance["outputs"]) == {"out/page.html"}
    assert provenance["mlflow_run_id"] == job.run.id
    assert "report done" in Path("logs/report.log").read_text()


@pytest.mark.parametrize("mistake", ["input", "target", "check"])
def test_a_mistake_is_found_before_anything_is_written(options, mistake) -> None:
    def refuse(_):
        raise UserError("no")

    arguments = {
        "input": {"inputs": [Path("none.csv")]},
        "target": {"inputs": [], "target": "Z"},
        "check": {"inputs": [], "check": refuse},
    }[mistake]
    with pytest.raises(UserError), open_job("report", options, outputs=[], **arguments):
        pytest.fail("the job ran")
    assert sorted(path.name for path in Path().iterdir()) == ["in.csv"]


def test_a_mistake_is_one_line_and_exit_code_2(capsys) -> None:
    def main() -> None:
        raise UserError("params.yaml: seed: no")

    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: params.yaml: seed: no\n"


def test_a_fault_of_ours_keeps_its_traceback_also_in_the_log(tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tfnas.stages.job import _log_to, run_script\n"
        "def main():\n    _log_to(Path('a.log')); raise RuntimeError('broken')\n"
        "run_script(main)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 1
    for text in (finished.stderr, (tmp_path / "a.log").read_text()):
        assert "RuntimeError: broken" in text and "Traceback" in text
