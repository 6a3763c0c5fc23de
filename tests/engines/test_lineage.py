"""Where a result came from: every declared output is answered, and every changed byte is noticed."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.engines.calls import call
from tests.helpers.engines.resolved_jobs import dvc_jobs
from tfnas.engines.lineage import Lineage, lineage_of, lineage_of_run
from tfnas.jobs.artifacts import write_provenance
from tfnas.jobs.errors import UserError
from tfnas.stages.params import load_params, stage_params
from tfnas.stages.registry import STAGES

ROOT = Path(__file__).parents[2]
STAGE = """stages:
  derive:
    foreach: [A]
    do:
      cmd: "true"
      deps: [results/search/A/supernet.pt]
      outs: [results/derive/A/architecture.json, results/derive/A/images, results/derive/A/provenance.json]
"""


@pytest.fixture
def derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one job, `derive/A`, committed to git and recorded by DVC; the working directory is elsewhere."""
    folder = tmp_path / "project"
    for name in ("results/search/A/supernet.pt", "results/derive/A/architecture.json", "results/derive/A/images/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "dvc.yaml").write_text(STAGE)
    (folder / ".gitignore").write_text("results\n.dvc\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "x")
    monkeypatch.chdir(folder)  # as a stage's script runs
    write_provenance(
        "results/derive/A",
        stage="derive",
        params=stage_params(load_params("params.yaml"), "derive", "A"),
        inputs=["results/search/A/supernet.pt"],
        outputs=["results/derive/A/architecture.json", "results/derive/A/images"],
        device="Made CPU",
        mlflow_run_id="0" * 32,
    )
    monkeypatch.chdir(tmp_path)
    call(folder, "dvc", "init", "--quiet", "--no-scm")
    call(folder, "dvc", "commit", "--force", "--quiet")
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def states(lineage: Lineage) -> tuple[list[str], list[str], list[str]]:
    return (
        [item.state for item in lineage.inputs],
        [item.state for item in lineage.outputs],
        [record.state for record in lineage.dvc],
    )


def test_every_declared_output_is_answered(project: Path) -> None:
    """Each file that a rule declares is one that its script records, and it leads back to its job."""
    for name, job in dvc_jobs(project).items():
        stage = name.partition("@")[0]
        out = Path(next(path for path in job.outputs if path.endswith("provenance.json"))).parent
        written = [out / output.name for output in STAGES[stage].outputs]
        assert {*map(str, written), f"{out}/provenance.json"} == job.outputs
        for path in written:
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(str(path))
        inside = {str(path): "0" for path in written}
        write_provenance(project / out, stage=stage, params={}, inputs=[], outputs=[], device="d", mlflow_run_id=None)
        record = json.loads((project / out / "provenance.json").read_text())
        (project / out / "provenance.json").write_text(json.dumps(record | {"outputs": inside}))
        (project / "dvc.yaml").rename(project / "dvc.away")  # DVC's word is another test's
        for path in map(Path, job.outputs):
            found = lineage_of(project / path)
            assert (found.stage, found.file) == (stage, str(path))
            assert found.job.replace("/", "@", 1).replace("/", "-") == name
            assert [item.path for item in found.outputs] == [str(path)] * (path.name != "provenance.json")
        (project / "dvc.away").rename(project / "dvc.yaml")


def test_all_is_told_and_as_recorded(derived: Path) -> None:
    found = lineage_of(derived / "results/derive/A/architecture.json")
    assert (found.job, found.stage, found.target, found.device) == ("derive/A", "derive", "A", "Made CPU")
    assert (found.commit.id, found.commit.dirty) == (git(derived, "rev-parse", "HEAD"), False)
    assert found.commit.state == "checked out"
    assert states(found) == (["same"], ["same"], ["same"])
    assert [record.stage for record in found.dvc] == ["derive@A"]
    assert found.params["derive.measure_repeats"] == 50 and found.params_now == {}
    assert found.mlflow_run_id == "0" * 32 and "python" in found.packages


@pytest.mark.parametrize(
    ("spoilt", "seen"),
    [
        ("results/search/A/supernet.pt", (["changed"], ["same"], ["same"])),
        ("results/derive/A/architecture.json", (["same"], ["changed"], ["changed"])),
    ],
)
def test_a_changed_byte_is_noticed_until_it_is_put_back(derived: Path, spoilt: str, seen) -> None:
    asked, path = derived / "results/derive/A/architecture.json", derived / spoilt
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert states(lineage_of(asked)) == seen
    path.write_bytes(before)
    assert states(lineage_of(asked)) == (["same"], ["same"], ["same"])
    path.unlink()
    assert states(lineage_of(asked)) == tuple(["missing" if s == "changed" else s for s in part] for part in seen)


def test_a_file_in_an_output_folder_leads_to_the_folder(derived: Path) -> None:
    inside = derived / "results/derive/A/images/1.png"
    found = lineage_of(inside)
    assert [item.path for item in found.outputs] == ["results/derive/A/images"] and found.file.endswith("1.png")
    inside.write_text("another")
    assert states(lineage_of(inside)) == (["same"], ["changed"], ["changed"])


def test_moved_and_asked_from_elsewhere_it_says_the_same(
    derived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lineage_of(derived / "results/derive/A/architecture.json")
    moved = derived.rename(tmp_path / "moved")
    monkeypatch.chdir(moved / "results")
    assert lineage_of(Path("derive/A/architecture.json")) == replace(before, folder=str(moved))


def test_what_became_of_the_commit(derived: Path) -> None:
    asked, record = derived / "results/derive/A/architecture.json", derived / "results/derive/A/provenance.json"
    (derived / "params.yaml").write_text((derived / "params.yaml").read_text() + "# another\n")
    git(derived, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--all", "--message", "y")
    assert lineage_of(asked).commit.state == "in this repository"
    commit = lineage_of(asked).commit.id
    record.write_text(record.read_text().replace(commit, f"{'1' * 40}-dirty"))
    found = lineage_of(asked).commit
    assert (found.id, found.dirty, found.state) == ("1" * 40, True, "not in this repository")
    record.write_text(record.read_text().replace(f"{'1' * 40}-dirty", "unknown"))
    assert lineage_of(asked).commit.state == "not recorded"


def test_parameters_that_have_changed_since_are_named(derived: Path) -> None:
    asked, params = derived / "results/derive/A/architecture.json", derived / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("measure_repeats: 50", "measure_repeats: 7"))
    assert lineage_of(asked).params_now == {"derive.measure_repeats": 7}
    params.write_text(text.replace("lambda: 0.1", "lambda: 2.0"))  # the search's, not this stage's
    assert lineage_of(asked).params_now == {}
    params.write_text(text.replace("  A:\n", "  Z:\n").replace("targets: [A, B]", "targets: [Z, B]"))
    assert lineage_of(asked).params_now is None


def test_a_run_leads_to_its_job(derived: Path) -> None:
    found = lineage_of_run("0" * 32, derived)
    assert found is not None and found.file is None
    assert [item.path for item in found.outputs] == ["results/derive/A/architecture.json", "results/derive/A/images"]
    assert states(found) == (["same"], ["same"] * 2, ["same"] * 2)
    assert lineage_of_run("1" * 32, derived) is None


def test_a_file_that_no_job_wrote(derived: Path) -> None:
    for name in ("params.yaml", "results/derive/A/notes.txt", "results/nothing.csv"):
        with pytest.raises(UserError, match="no job wrote it"):
            lineage_of(derived / name)
