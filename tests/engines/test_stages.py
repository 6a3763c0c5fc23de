"""A job's own record against today's parameters, code and inputs: whatever the engines were told, it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.engines.stub_stage import parse, run
from tests.helpers.projects import copy_project, set_param
from tfnas.cli.provenance import verdict
from tfnas.engines.lineage import lineage_of
from tfnas.engines.trust import disagreements
from tfnas.jobs.artifacts import seal

SEARCH, DERIVE = Path("results/search/A"), Path("results/derive/A")
RECORDS = [f"{job}/provenance.json" for job in (SEARCH, DERIVE)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which two jobs have run: derive has read what search wrote."""
    folder = copy_project(tmp_path / "project")
    (folder / "inputs" / "spaces" / "mine.yaml").write_text((folder / "tfnas/space/spaces/tf-nas.yaml").read_text())
    set_param(folder, "space", "inputs/spaces/mine.yaml")
    monkeypatch.chdir(folder)
    (folder / "table.json").write_text("{}")
    for stage, job, read in (
        ("search", SEARCH, "--table table.json"),
        ("derive", DERIVE, f"--supernet {SEARCH}/supernet.pt"),
    ):
        options = f"--params params.yaml --target A {read} --out {job} --log logs/{stage}.log"
        run(stage, parse(options.split()), folder)
    return folder


def rewrite(path: Path, change: Callable[[dict], object], *, sealed: bool = False) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record | ({"seal": seal(record)} if sealed else {})))


def test_what_has_not_changed_agrees(folder: Path) -> None:
    assert disagreements(folder, RECORDS, thorough=["search/A", "derive/A"]) == {}
    assert disagreements(folder, ["results/warm_up/provenance.json"]) == {}  # which has not run


@pytest.mark.parametrize(
    ("spoil", "job", "reason"),
    [
        (
            lambda f: set_param(f, "search.lambda", 0.2),
            "search/A",
            "search.lambda is 0.2 in params.yaml, the job ran with 0.1",
        ),
        (lambda f: set_param(f, "derive.measure_repeats", 7), "derive/A", "derive.measure_repeats is 7"),
        (lambda f: (f / "tfnas/search/steps.py").open("a").write("# x\n"), "search/A", "tfnas/search has changed"),
        (lambda f: (f / "tfnas/stages/search.py").open("a").write("# x\n"), "search/A", "stages/search.py has changed"),
        (lambda f: (f / "tfnas/compute/seeding.py").open("a").write("# x\n"), "search/A", "tfnas/compute has changed"),
        (
            lambda f: (f / "workflow/scripts/derive.py").open("a").write("# x\n"),
            "derive/A",
            "workflow/scripts/derive.py has",
        ),
        (lambda f: (f / "table.json").write_text("[]"), "search/A", "table.json is not what the job read"),
        (
            lambda f: (f / "inputs/spaces/mine.yaml").open("a").write("# x\n"),
            "derive/A",
            "inputs/spaces/mine.yaml is not",
        ),
        (
            lambda f: (f / DERIVE / "architecture.json").write_text("x"),
            "derive/A",
            "architecture.json is not what the job wrote",
        ),
        (
            lambda f: (f / DERIVE / "architecture.json").unlink(),
            "derive/A",
            "architecture.json is not what the job wrote",
        ),
        (lambda f: (f / DERIVE / "provenance.json").write_text("{"), "derive/A", "damaged"),
        (
            lambda f: (f / DERIVE / "provenance.json").write_text((f / SEARCH / "provenance.json").read_text()),
            "derive/A",
            "another job's",
        ),
        (
            lambda f: rewrite(f / SEARCH / "provenance.json", lambda r: r["params"]["search"].update({"lambda": 9})),
            "search/A",
            "edited by hand",
        ),
        (lambda f: rewrite(f / SEARCH / "provenance.json", lambda r: r.pop("seal")), "search/A", "edited by hand"),
        (
            lambda f: rewrite(f / SEARCH / "provenance.json", lambda r: r.pop("code"), sealed=True),
            "search/A",
            "older tfnas",
        ),
        (
            lambda f: rewrite(
                f / SEARCH / "provenance.json",
                lambda r: r["outputs"].update({f"{SEARCH}/supernet.pt": "0"}),
                sealed=True,
            ),
            "derive/A",
            "supernet.pt is not what the job read",
        ),
    ],
)
def test_each_change_is_named(folder: Path, spoil: Callable[[Path], object], job: str, reason: str) -> None:
    spoil(folder)
    found = disagreements(folder, RECORDS, thorough=["search/A", "derive/A"])
    assert reason in found[job]


def test_a_change_and_its_undoing_agree_again(folder: Path) -> None:
    set_param(folder, "search.lambda", 0.2)
    assert disagreements(folder, RECORDS)
    set_param(folder, "search.lambda", 0.1)
    assert disagreements(folder, RECORDS) == {}


def test_the_lineage_of_a_result_names_the_job_before_it_that_is_of_another_day(folder: Path) -> None:
    asked = folder / DERIVE / "architecture.json"
    assert lineage_of(asked).stale == {}
    set_param(folder, "search.lambda", 0.2)
    found = lineage_of(asked)
    assert found.stale == {"search/A": "search.lambda is 0.2 in params.yaml, the job ran with 0.1"}
    assert verdict(found).endswith("search/A: search.lambda is 0.2 in params.yaml, the job ran with 0.1")
