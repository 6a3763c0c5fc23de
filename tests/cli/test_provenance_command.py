"""`tfnas provenance`: from a file to its run and back, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.fake_stage import run_fake_stage
from tfnas.cli import main
from tfnas.jobs.artifacts import digest_file, write_text
from tfnas.stages.job import Job
from tfnas.stages.registry import STAGES

ROOT = Path(__file__).parents[2]


OUTPUTS = STAGES["derive"].outputs


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder in which `derive/A` has run twice, and the ids of both runs; the second has replaced the first."""
    folder, monkeypatch = tmp_path_factory.mktemp("project"), pytest.MonkeyPatch()
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "input.txt").write_text("input")
    (folder / "table.txt").write_text("table")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ids = [_run_job(text) for text in ("first", "second")]
    monkeypatch.undo()
    return folder, *ids


def _run_job(text: str) -> str:
    def write(job: Job) -> None:
        for output in OUTPUTS:
            write_text(job.out / output.name, text)

    inputs = ["--supernet", "input.txt", "--table", "table.txt"]
    out = ["--out", "results/derive/A", "--log", "logs/derive/A.log"]
    job = run_fake_stage("derive", ["--params", "params.yaml", "--target", "A", *inputs, *out], run=write)
    assert job.run.id is not None
    return job.run.id


@pytest.fixture(autouse=True)
def there(project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project[0])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def told(what: str, capsys) -> dict:
    assert main(["provenance", what, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_from_a_file_to_its_run_and_back(project, capsys) -> None:
    _, _, last = project
    of_file = told("results/derive/A/architecture.json", capsys)
    assert of_file["mlflow_run_id"] == last and of_file["mlflow"]["tags"]["stage"] == "derive"
    assert of_file["mlflow"]["link"].endswith(f"/runs/{last}") and "mlflow ui" in of_file["mlflow"]["command"]
    of_run = told(last, capsys)
    assert of_run["outputs"][:1] == of_file["outputs"] and of_run["mlflow"] == of_file["mlflow"]
    assert {item["state"] for item in of_run["outputs"]} == {"same"} and len(of_run["outputs"]) == len(OUTPUTS)


def test_a_run_whose_files_were_replaced_is_told_from_mlflow(project, capsys) -> None:
    _, first, _ = project
    found = told(first, capsys)
    assert found["job"] == "derive/A" and found["mlflow_run_id"] == first
    assert {item["state"] for item in found["outputs"]} == {"changed"} and len(found["outputs"]) == len(OUTPUTS)
    write_text("expected", "first")
    assert found["outputs"][0]["digest"] == digest_file("expected")


def test_the_text_says_what_the_json_says(capsys) -> None:
    found = told("results/derive/A/architecture.json", capsys)
    assert main(["provenance", "results/derive/A/architecture.json"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == f"results/derive/A/architecture.json: {found['verdict']}"
    for part in (found["device"], found["mlflow_run_id"], found["mlflow"]["link"], "derive.measure_repeats: 50"):
        assert part in text
    for item in (*found["inputs"], *found["outputs"]):
        assert f"{item['path']}  sha256 {item['digest'][:12]}  as recorded" in text


def test_a_store_that_is_gone_hides_nothing_else(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    found = told("results/derive/A/architecture.json", capsys)
    assert found["mlflow"] is None and found["outputs"][0]["state"] == "same"
    assert not (tmp_path / "none.db").exists()


def test_mistakes_are_one_line(capsys) -> None:
    for what, said in (("params.yaml", "no job wrote it"), ("f" * 32, "neither a job in results nor a run")):
        assert main(["provenance", what]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and said in error and error.count("\n") == 1
