"""Fashion-MNIST's IDX files: equal to torchvision's reading, in both layouts, and every damage in one line."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import FashionMNIST

from tests.helpers.jobs import make_job
from tests.helpers.params import changed, shipped_params
from tfnas.data.images.stores import describe, open_store, write_source
from tfnas.data.manifest import read_manifest
from tfnas.data.params import DEFAULT_ROOTS
from tfnas.data.sources.fashion_mnist import (
    BORDER,
    CLASSES,
    FashionMnistStore,
    check_fashion_mnist,
    list_fashion_mnist,
    read_idx,
)
from tfnas.jobs.errors import UserError
from tfnas.stages import prepare_data
from tfnas.stages.params import Params

COUNTS = {"train": 30, "t10k": 20}
TORCHVISION, DEBIAN = "FashionMNIST/raw", "."
PACKAGE = Path(DEFAULT_ROOTS["fashion-mnist"])


def idx(values: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def write(folder: Path, name: str, content: bytes, *, zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)


def write_set(root: Path, place: str = DEBIAN, *, zipped: bool = True) -> Path:
    """Random pictures; each class in each split."""
    random = np.random.default_rng(0)
    for name, count in COUNTS.items():
        images = random.integers(0, 256, (count, 28, 28))
        labels = random.permutation(np.arange(count) % len(CLASSES))
        write(root / place, f"{name}-images-idx3-ubyte", idx(images), zipped=zipped)
        write(root / place, f"{name}-labels-idx1-ubyte", idx(labels), zipped=zipped)
    return root


@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=4),
    zipped=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_was_written_is_read(tmp_path_factory, shape: list[int], zipped: bool, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    folder = tmp_path_factory.mktemp("idx")
    write(folder, "any", idx(np.asarray(values)), zipped=zipped)
    np.testing.assert_array_equal(read_idx(folder / ("any.gz" if zipped else "any")), values)


@given(data=st.data(), zipped=st.booleans())
def test_a_file_of_any_other_length_is_refused(tmp_path_factory, data: st.DataObject, zipped: bool) -> None:
    content = idx(np.zeros((3, 4), np.uint8))
    damaged = data.draw(
        st.integers(0, len(content) - 1).map(lambda end: content[:end])
        | st.binary(min_size=1, max_size=9).map(lambda more: content + more)
    )
    folder = tmp_path_factory.mktemp("idx")
    write(folder, "any", damaged, zipped=zipped)
    with pytest.raises(UserError, match=r"any.*is no sound Fashion-MNIST file") as caught:
        read_idx(folder / ("any.gz" if zipped else "any"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", [TORCHVISION, DEBIAN])
def test_the_pictures_are_torchvisions_with_a_black_border(tmp_path: Path, place: str, zipped: bool) -> None:
    check_fashion_mnist(write_set(tmp_path / "mine", place, zipped=zipped))
    write_set(tmp_path / "theirs", TORCHVISION, zipped=False)
    records, store = list_fashion_mnist(tmp_path / "mine"), FashionMnistStore(tmp_path / "mine")
    assert records == sorted(records) and len(records) == sum(COUNTS.values())
    for split, train in (("train", True), ("val", False)):
        theirs = FashionMNIST(str(tmp_path / "theirs"), train=train)
        mine = [record for record in sorted(records, key=lambda record: record.path) if record.split == split]
        assert len(mine) == len(theirs)
        for record, (picture, label) in zip(mine, theirs, strict=True):
            assert record.class_name == CLASSES[label] == theirs.classes[label]
            image = store.read(record.path)
            assert image.shape == (3, 32, 32) and image.dtype == torch.uint8
            inside = image[:, BORDER:-BORDER, BORDER:-BORDER]
            assert all(torch.equal(channel, torch.from_numpy(np.array(picture))) for channel in inside)
            assert image.sum() == inside.sum()


def test_unzipped_files_come_first_as_with_torchvision(tmp_path: Path) -> None:
    root = write_set(tmp_path, TORCHVISION, zipped=False)
    (root / TORCHVISION / "train-images-idx3-ubyte.gz").write_bytes(b"not read")
    assert len(list_fashion_mnist(root)) == sum(COUNTS.values())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte", b"", "begins with nothing"),
        ("train-images-idx3-ubyte", b"\x89PNG" + bytes(20), "begins with 89504e47"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + bytes(12), "type 0x0d, expected unsigned bytes, 0x08"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + bytes(7), "ends within its header, after 11 of 16 bytes"),
        ("train-images-idx3-ubyte", idx(np.zeros((30, 28, 28)))[:-1], "30 x 28 x 28, asks for 23536"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "4294967295 x 4294967295 x 4294967295"),
        ("train-images-idx3-ubyte", idx(np.zeros((30, 32, 32))), r"shape \(30, 32, 32\), expected N x 28 x 28"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros((20, 1))), r"shape \(20, 1\), expected N labels"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(19)), "19 labels for the 20 images"),
        ("t10k-labels-idx1-ubyte", idx(np.full(20, 10)), "label 10, expected 0 to 9"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_damage_is_one_line_with_the_fix(tmp_path: Path, name: str, content: bytes, words: str, zipped: bool) -> None:
    root = write_set(tmp_path, zipped=zipped)
    write(root, name, content, zipped=zipped)
    for read in (list_fashion_mnist, FashionMnistStore):
        with pytest.raises(UserError, match=words) as caught:
            read(root)
        line = str(caught.value)
        assert line.startswith(str(root / name)) and "\n" not in line
        assert "apt-get install dataset-fashion-mnist" in line and "torchvision.datasets.FashionMNIST" in line


def test_damaged_gzip_is_one_line(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    path = root / "train-images-idx3-ubyte.gz"
    sound = path.read_bytes()
    flipped = bytearray(sound)
    flipped[-6] ^= 1  # of the checksum
    for content in (sound[:-20], sound[:5], b"text", bytes(flipped), sound[:30] + bytes(50) + sound[80:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: .*cannot be unzipped") as caught:
            list_fashion_mnist(root)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named_with_where_to_get_it(tmp_path: Path, missing: str) -> None:
    root = write_set(tmp_path)
    (root / f"{missing}.gz").unlink()
    for read in (check_fashion_mnist, list_fashion_mnist):
        with pytest.raises(UserError, match=rf"{root}: has no {missing} or .*apt-get install dataset-fashion-mnist"):
            read(root)


def test_an_unknown_picture(tmp_path: Path) -> None:
    store = FashionMnistStore(write_set(tmp_path))
    for path in ("train-images-idx3-ubyte.gz/00030", "train-images-idx3-ubyte.gz/x", "none/00001"):
        with pytest.raises(UserError, match="there is no such Fashion-MNIST image"):
            store.read(path)


def fashion(root: Path | None) -> Params:
    settings = {"source": "fashion-mnist", "root": None if root is None else str(root)}
    return changed(shipped_params(), prepare_data=settings, transfer={"datasets": []})


@pytest.mark.parametrize("by_default", [True, False])
def test_the_stage_lists_the_set_and_copies_nothing(tmp_path: Path, run, monkeypatch, by_default: bool) -> None:
    root = write_set(tmp_path / "set")
    monkeypatch.setitem(DEFAULT_ROOTS, "fashion-mnist", str(root if by_default else tmp_path / "none"))
    out = run("prepare_data", fashion(None if by_default else root), "prepared")
    records = read_manifest(out / "manifest.csv")
    assert records == list_fashion_mnist(root)
    assert [path.name for path in (out / "images").iterdir()] == ["source.json"]
    store, _ = open_store(out / "images")
    assert torch.equal(store.read(records[0].path), FashionMnistStore(root).read(records[0].path))


def test_the_stage_lists_fewer_training_images_per_class(tmp_path: Path, run) -> None:
    params = changed(fashion(write_set(tmp_path / "set")), prepare_data={"images_per_class": 2})
    records = read_manifest(run("prepare_data", params, "prepared") / "manifest.csv")
    for name in CLASSES:
        assert [r.split for r in records if r.class_name == name] == ["train"] * 2 + ["val"] * 2


def test_the_stage_refuses_a_set_that_is_not_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(DEFAULT_ROOTS, "fashion-mnist", str(tmp_path / "none"))
    for download in (False, True):  # nothing is downloaded into the package's folder
        params = changed(fashion(None), prepare_data={"download": download})
        with pytest.raises(UserError, match=r"none: has no train-images-idx3-ubyte .*apt-get install"):
            prepare_data.check(make_job("prepare_data", tmp_path / "out", params, {}))


@pytest.mark.skipif(not PACKAGE.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_set(tmp_path: Path) -> None:
    write_source(tmp_path / "images", describe("fashion-mnist", str(PACKAGE), "error"))
    records, (store, _) = list_fashion_mnist(PACKAGE), open_store(tmp_path / "images")
    for split, count in (("train", 6000), ("val", 1000)):
        names = [record.class_name for record in records if record.split == split]
        assert {name: names.count(name) for name in CLASSES} == dict.fromkeys(CLASSES, count)
    mean = torch.stack([store.read(r.path)[0, BORDER:-BORDER, BORDER:-BORDER] for r in records[::10]]).float().mean()
    assert mean / 255 == pytest.approx(0.286, abs=0.005)  # as published
