"""CSV files: what is written is read, and a fault is named by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.data.manifest import image_path, read_table, whole_number, write_table
from tfnas.jobs.errors import UserError


def read(path: Path) -> list[list[str]]:
    return [cells for _, cells in read_table(path, ("a", "b"), stage="prepare_data")]


def test_round_trip_of_awkward_cells(tmp_path: Path) -> None:
    rows = [['comma, quote "', "1"], ["", "ünïcode 数"], [" space ", "x"]]
    write_table(tmp_path / "t.csv", ("a", "b"), rows)
    assert read(tmp_path / "t.csv") == rows
    assert (tmp_path / "t.csv").read_bytes().startswith(b"a,b\n")


NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0/\r\n"), min_size=1)


@given(rows=st.lists(st.tuples(NAME, NAME), max_size=5))
@settings(max_examples=60, deadline=None)
def test_every_text_without_line_breaks_comes_back(rows, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    write_table(path, ("a", "b"), rows)
    assert read(path) == [list(row) for row in rows]


def test_a_fault_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for content, words in [
        (b"", "line 1 is not a,b"),
        (b"a,c\n", "line 1 is not a,b"),
        (b"a,b\n1,2\n3\n", "line 3 has 1 cells, expected 2"),
        (b"a,b\n1,2,3\n", "line 2 has 3 cells"),
        (b"a,b\n\xff,1\n", "is not a CSV file"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"t\.csv: {words}.*prepare_data"):
            read(path)
    with pytest.raises(UserError, match=r"none\.csv: cannot be read .*; run prepare_data"):
        read(tmp_path / "none.csv")


@pytest.mark.parametrize("cell", ["", "-1", "1.5", "²", "x"])
def test_other_than_whole_numbers(cell: str) -> None:
    assert whole_number("007", "f: line 2") == 7
    with pytest.raises(UserError, match=r"^f: line 2: "):
        whole_number(cell, "f: line 2")


@pytest.mark.parametrize("cell", ["", "/etc/passwd", "../x.png", "train/../../x.png"])
def test_paths_stay_within_the_folder(cell: str) -> None:
    assert image_path("train/a..b/x.png", "f") == "train/a..b/x.png"
    with pytest.raises(UserError, match=r"^f: line 2: path"):
        image_path(cell, "f: line 2")
