"""Which outputs are as Snakemake left them, by its own records."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.persistence.file import FilePersistence

from tfnas.engines.snakemake import LONG_AGO, _record_name, forget, replaced
from tfnas.jobs.artifacts import SNAKEMAKE_MARK

NAME = "results/derive/A/architecture.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A project with one output, as Snakemake has recorded it."""
    path = tmp_path / NAME
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    record(tmp_path, NAME, path.stat().st_mtime)
    return tmp_path


def record(folder: Path, output: str, endtime: float, *, kind: str = "metadata") -> None:
    path = folder / ".snakemake" / kind / _record_name(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"endtime": endtime}))


@given(st.text("ab/_é", min_size=1, max_size=900))
def test_a_record_has_the_name_that_snakemake_gives_it(output) -> None:
    persistence = SimpleNamespace(_fetch_max_len=lambda subject: os.pathconf("/tmp", "PC_NAME_MAX"))
    assert Path(FilePersistence._record_path(persistence, "", output)) == _record_name(output)


def test_a_file_is_replaced_when_its_time_is_not_the_recorded_one(folder) -> None:
    path = folder / NAME
    recorded = path.stat().st_mtime
    assert replaced(folder, [NAME]) == set()
    for other in (recorded + 1.0, recorded - 1.0):
        os.utime(path, (other, other))
        assert replaced(folder, [NAME]) == {NAME}
    os.utime(path, (recorded, recorded))
    assert replaced(folder, [NAME]) == set()


def test_a_file_without_a_record_is_replaced_and_a_missing_one_is_not(folder) -> None:
    (folder / "results" / "other.json").write_text("{}")
    assert replaced(folder, ["results/other.json", "results/missing.json"]) == {"results/other.json"}


def test_a_damaged_record_is_none(folder) -> None:
    (folder / ".snakemake" / "metadata" / _record_name(NAME)).write_text('{"endtime": 12')
    assert replaced(folder, [NAME]) == {NAME}


def test_what_a_killed_job_left_is_snakemakes_affair(folder) -> None:
    (folder / NAME).write_text("half")
    record(folder, NAME, 0.0, kind="incomplete")
    assert replaced(folder, [NAME]) == set()


def test_a_folder_counts_by_its_mark_and_by_what_was_put_into_it_later(folder) -> None:
    images = folder / "results" / "images"
    images.mkdir()
    (images / "1.png").write_text("")
    (images / SNAKEMAKE_MARK).touch()
    time = max(images.stat().st_mtime, (images / SNAKEMAKE_MARK).stat().st_mtime) + 1.0
    os.utime(images / SNAKEMAKE_MARK, (time, time))
    record(folder, "results/images", time)
    assert replaced(folder, ["results/images"]) == set()
    os.utime(images, (time + 1.0, time + 1.0))  # as when a file in it is removed
    assert replaced(folder, ["results/images"]) == {"results/images"}


def test_a_forgotten_output_has_no_record_and_is_older_than_any_input(folder) -> None:
    images = folder / "results" / "images"
    images.mkdir()
    (images / SNAKEMAKE_MARK).touch()
    for output in (NAME, "results/images", "results/missing"):
        forget(folder, output)
    assert replaced(folder, [NAME, "results/images", "results/missing"]) == {NAME, "results/images"}
    assert not (folder / ".snakemake" / "metadata" / _record_name(NAME)).exists()
    for path in (folder / NAME, images, images / SNAKEMAKE_MARK):
        assert path.stat().st_mtime == LONG_AGO
