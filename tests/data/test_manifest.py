"""manifest.csv, classes.csv, train.csv and val.csv."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfnas.data import manifest_classes, manifest_samples, read_manifest, read_samples
from tfnas.data.manifest import ManifestRecord, write_classes, write_manifest, write_samples
from tfnas.runtime.errors import UserError

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
