"""What every script shares: checks before work, a log, provenance; one line for a user's mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.fake_stage import run_fake_stage
from tfnas.jobs.errors import UserError
from tfnas.stages.job import Job, run_script

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def arguments(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "in.csv").write_text("a\n")
    return ["--params", str(PARAMS), "--results", "in.csv", "--out", "out", "--log", "logs/report.log"]


def write_outputs(job: Job) -> None:
    for output in job.stage.outputs:
        (job.out / output.name).write_text("{}")


def test_a_job_leaves_log_and_provenance(arguments) -> None:
    job = run_fake_stage("report", arguments, run=write_outputs)
    provenance = json.loads(Path("out/provenance.json").read_text())
    assert set(provenance["inputs"]) == {"in.csv"}
    assert set(provenance["outputs"]) == {f"out/{output.name}" for output in job.stage.outputs}
    assert provenance["mlflow_run_id"] == job.run.id
    assert "report done" in Path("logs/report.log").read_text()


def test_what_is_left_for_the_end_comes_when_all_is_written(arguments) -> None:
    seen = []

    def run(job: Job) -> None:
        write_outputs(job)
        job.at_end.append(lambda: seen.append((job.out / "provenance.json").exists()))

    run_fake_stage("report", arguments, run=run)
    assert seen == [True]


@pytest.mark.parametrize("mistake", ["input", "reads", "target", "data set", "check"])
def test_a_mistake_is_found_before_anything_is_written(arguments, mistake) -> None:
    def refuse(_):
        raise UserError("no")

    stage, checks = "report", {}
    if mistake == "input":
        arguments[3] = "none.csv"
    elif mistake == "reads":
        checks = {"reads": lambda job: [Path("none.csv")]}
    elif mistake == "check":
        checks = {"check": refuse}
    else:
        stage, target, dataset = "transfer", "Z" if mistake == "target" else "A", "none"
        files = ["--architecture", "in.csv", "--weights", "in.csv", "--data", "in.csv"]
        arguments = [*arguments[:2], "--target", target, "--dataset", dataset, *files, *arguments[4:]]
    with pytest.raises(UserError):
        run_fake_stage(stage, arguments, run=lambda job: pytest.fail("the job ran"), **checks)
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
