"""What is missing or damaged among the results is one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tfnas.jobs.errors import UserError
from tfnas.report.inputs import job_folders, read_results, read_typed_rows, required_files
from tfnas.report.summary import provenance_rows, recorded_packages
from tfnas.stages.params import Params


@pytest.fixture
def folder(make_results: Callable[..., Path], params: Params, tmp_path: Path) -> Path:
    return make_results(tmp_path / "results", params)


def test_every_required_file_is_needed(folder: Path, params: Params) -> None:
    for path in required_files(params, folder):
        contents = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match=path.name):
            read_results(params, folder)
        path.write_bytes(contents)
    read_results(params, folder)


def test_nothing_but_the_required_files_and_provenance_is_read(folder: Path, params: Params) -> None:
    needed = {*required_files(params, folder), *folder.rglob("provenance.json")}
    before = read_results(params, folder)
    for path in folder.rglob("*"):
        if path.is_file() and path not in needed:
            path.unlink()
    assert read_results(params, folder) == before


def test_targets_without_a_transfer_have_none(folder: Path, params: Params) -> None:
    fewer = params.model_copy(update={"transfer": params.transfer.model_copy(update={"targets": ["B"]})})
    a, b = read_results(fewer, folder).targets
    assert not a.transfers and list(b.transfers) == params.transfer.datasets
    assert "transfer/A/shifted-digits" not in list(job_folders(fewer))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("search/A/history.csv", "target_ms", "aim_ms", "'target_ms'"),
        ("profile_latency/validation.csv", "random00,", "random00,fast", "line 2: table_ms"),
        ("retrain/B/metrics.json", '"top1_percent"', '"top1"', "top1_percent: expected a number, got None"),
        ("derive/A/metrics.json", '"macs": ', '"macs": 1e', "macs: expected a number, got inf"),
        ("rank_classes/class_accuracy.csv", "zero,1000", "zero,0", "images: 0 of class 'zero'"),
    ],
)
def test_damage_is_named(folder: Path, params: Params, file: str, old: str, new: str, words: str) -> None:
    path = folder / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=words) as error:
        read_results(params, folder)
    assert path.name in str(error.value) and "\n" not in str(error.value)


def test_a_class_of_the_subset_that_was_not_ranked(folder: Path, params: Params) -> None:
    path = folder / "rank_classes/class_accuracy.csv"
    chosen = (folder / "build_subset/classes.csv").read_text().splitlines()[1].split(",")[1]
    path.write_text(path.read_text().replace(f"{chosen},", "naught,"))
    with pytest.raises(UserError, match=rf"class_accuracy\.csv: has no class '{chosen}'"):
        read_results(params, folder)


def test_a_table_without_rows_or_with_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n")
    with pytest.raises(UserError, match="has no rows"):
        read_typed_rows(path)
    assert read_typed_rows(path, texts=("a",), may_be_empty=True) == []
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(UserError, match="line 3 has not as many cells"):
        read_typed_rows(path)


def test_cells_become_numbers_unless_they_are_to_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("class,n,x,empty,op\n007,7,0.5,,k3_e3\n")
    assert read_typed_rows(path, texts=("class",), numbers=("n", "x")) == [
        {"class": "007", "n": 7, "x": 0.5, "empty": None, "op": "k3_e3"}
    ]


def test_provenance_is_shown_without_what_a_repeated_job_would_change(folder: Path, params: Params) -> None:
    path = folder / "search/A/provenance.json"
    before = read_results(params, folder).provenance
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "created": "2000-01-01T00:00:00+00:00", "mlflow_run_id": "other"}))
    after = read_results(params, folder).provenance
    assert provenance_rows(after) == provenance_rows(before)
    assert recorded_packages(after) == recorded_packages(before) and len(recorded_packages(before)) == 1
    assert [row.job for row in provenance_rows(before)] == list(job_folders(params))
    assert provenance_rows({"x": {}})[0].commit == "not recorded"
