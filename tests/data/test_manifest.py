"""manifest.csv, classes.csv, train.csv and val.csv; faults named by line; folders written whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.data import manifest_classes, manifest_samples, read_manifest, read_samples
from tfnas.data.manifest import (
    ManifestRecord,
    atomic_folder,
    describe_changed_images,
    image_path,
    limit_training,
    read_table,
    whole_number,
    write_classes,
    write_folders,
    write_manifest,
    write_note,
    write_samples,
    write_table,
)
from tfnas.jobs.artifacts import write_json
from tfnas.jobs.errors import UserError

names = st.text("abz ,'\"é数", min_size=1, max_size=6)
records = st.lists(
    st.builds(
        lambda split, name, file, size: ManifestRecord(split, name, f"{split}/{name}/{file}.png", size),
        st.sampled_from(("train", "val")),
        names,
        names,
        st.integers(0, 10**9),
    ),
    max_size=12,
)


LIMITED = [
    ManifestRecord(split, name, f"{split}/{name}/{number}", 1)
    for split in ("train", "val")
    for name in "ab"
    for number in range(9)
]


@given(most=st.integers(1, 12), more=st.integers(0, 12))
def test_fewer_training_images_are_a_part_of_more_and_validation_stays(most: int, more: int) -> None:
    kept, others = limit_training(LIMITED, most), limit_training(LIMITED, most + more)
    assert set(kept) <= set(others) and limit_training(LIMITED, None) == LIMITED
    assert kept == [record for record in LIMITED if record in kept]  # in their order
    for name in "ab":
        counts = [sum(r.class_name == name and r.split == split for r in kept) for split in ("train", "val")]
        assert counts == [min(most, 9), 9]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifest") / "manifest.csv"


@given(records=records)
def test_what_is_written_is_read(path: Path, records: list[ManifestRecord]) -> None:
    write_manifest(records, path)
    assert read_manifest(path) == records


@given(records=records)
def test_labels_are_places_among_the_sorted_classes(records: list[ManifestRecord]) -> None:
    for split in ("train", "val"):
        samples, classes = manifest_samples(records, split)
        assert classes == sorted(set(classes))
        mine = [record for record in records if record.split == split]
        assert [(path, classes[label]) for path, label in samples] == [(r.path, r.class_name) for r in mine]
    assert set(manifest_classes(records)) == {record.class_name for record in records}


def test_a_damaged_row_names_its_line(path: Path) -> None:
    for row, words in [
        ("test,a,x.png,1", "split 'test' is neither train nor val"),
        ("train,,x.png,1", "class is empty"),
        ("train,a,../x.png,1", "path '../x.png'"),
        ("train,a,x.png,many", "'many' is not a whole number"),
    ]:
        path.write_text(f"split,class,path,bytes\ntrain,a,ok.png,1\n{row}\n")
        with pytest.raises(UserError, match=rf"manifest\.csv: line 3: {words}"):
            read_manifest(path)


def test_samples_and_classes(tmp_path: Path) -> None:
    write_samples([("train/a/1.png", "a", 0), ("train/b/1.png", "b", 1)], tmp_path / "train.csv")
    assert read_samples(tmp_path / "train.csv") == [("train/a/1.png", 0), ("train/b/1.png", 1)]
    (tmp_path / "train.csv").write_text("path,class,label\nx.png,a,first\n")
    with pytest.raises(UserError, match=r"train\.csv: line 2: 'first'"):
        read_samples(tmp_path / "train.csv")
    write_classes(["a", "b"], tmp_path / "classes.csv")
    assert (tmp_path / "classes.csv").read_text() == "label,class\n0,a\n1,b\n"


@pytest.mark.parametrize(
    "layout", [("train/cat", "train/dog", "val/cat", "val/dog"), ("cat", "dog"), ("val", "train/n01")]
)
def test_a_changed_folder_of_images_is_named_and_a_touched_one_is_not(tmp_path, layout) -> None:
    root, listed = tmp_path / "images", tmp_path / "prepare_data"
    paths = [f"{folder}/{name}" for folder in layout for name in ("a.png", "ä b.png")]
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    write_json(listed / "images" / "source.json", {"root": str(root)})
    write_folders(root, paths, listed / "folders.csv")

    def said(asked: Path | None = root) -> str:
        return describe_changed_images(None if asked is None else str(asked), listed / "folders.csv") or ""

    def later(folder: Path) -> None:
        os.utime(folder, ns=(0, folder.stat().st_mtime_ns + 1_000_000_000))

    assert said() == ""
    first = root / layout[0]
    later(first)  # as after a copy, or a file that was written and removed
    assert said() == said(None) == said(tmp_path / "other") == ""

    new = first / "new.png"
    new.write_text("new")
    later(first)
    assert str(first) in said() and "-R prepare_data" in said()
    new.unlink()
    assert said() == ""
    renamed = (first / "a.png").rename(first / "b.png")
    later(first)
    assert str(first) in said()
    renamed.rename(first / "a.png")
    later(first)
    assert said() == ""
    (first / "a.png").write_text("much longer than it was before")
    later(first)
    assert str(first) in said()
    (first / "a.png").write_text(paths[0])
    assert said() == ""
    extra = root / Path(layout[-1]).parent / "extra"  # another class
    extra.mkdir()
    later(extra.parent)
    assert said()
    extra.rmdir()
    shutil.rmtree(root)
    assert said()


def read(path: Path) -> list[list[str]]:
    return [cells for _, cells in read_table(path, ("a", "b"), stage="prepare_data")]


def test_round_trip_of_awkward_cells(tmp_path: Path) -> None:
    rows = [['comma, quote "', "1"], ["", "ünïcode 数"], [" space ", "x"]]
    write_table(tmp_path / "t.csv", ("a", "b"), rows)
    assert read(tmp_path / "t.csv") == rows
    assert (tmp_path / "t.csv").read_bytes().startswith(b"a,b\n")


NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0/\r\n"), min_size=1)


@given(rows=st.lists(st.tuples(NAME, NAME), max_size=5))
@settings(max_examples=60)
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


def test_a_new_folder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    for name in ("old.txt", "new.txt"):
        with atomic_folder(tmp_path / "images") as folder:
            (folder / name).write_text(name)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["new.txt"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    write_note(tmp_path / "images", "old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "images") as folder:
        (folder / "half.png").write_bytes(b"")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert (tmp_path / "images" / "README.txt").read_text() == "old\n"
