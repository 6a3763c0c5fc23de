"""CIFAR's format: equal to torchvision's reading, and no code of a file's is run."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets import cifar as torchvision_cifar

from tfnas.data import load_transfer_set, transfer_root
from tfnas.data.sources.cifar_files import FORMATS
from tfnas.jobs.errors import UserError

Write = Callable[[str], Path]


class ShiftedDigits(CIFAR10):
    base_folder = FORMATS["shifted-digits"].folder


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("dataset", "theirs"), [("cifar10", CIFAR10), ("cifar100", CIFAR100), ("shifted-digits", ShiftedDigits)]
)
def test_equal_to_torchvisions(cifar: Write, monkeypatch, dataset: str, theirs, train: bool) -> None:
    root = cifar(dataset)
    monkeypatch.setattr(torchvision_cifar, "check_integrity", lambda *_: True)  # the MD5s are the genuine files'
    expected = theirs(str(root), train=train)
    mine = load_transfer_set(dataset, root, train, lambda picture: picture.permute(1, 2, 0).numpy())
    assert mine.classes == expected.classes and len(mine) == len(expected) == (13 if train else 4)
    for (image, label), (their_image, their_label) in zip((mine[i] for i in range(len(mine))), expected, strict=True):
        assert label == their_label
        np.testing.assert_array_equal(image, np.asarray(their_image))


def test_batches_as_python_2_wrote_the_genuine_ones(cifar: Write) -> None:
    """Protocol 2 with byte strings for keys, names and pixels; NumPy 1 names of its globals."""
    root = cifar("cifar10")
    folder = root / FORMATS["cifar10"].folder
    expected = load_transfer_set("cifar10", root, False, np.asarray)
    pixels = pickle.loads((folder / "test_batch").read_bytes())["data"].tobytes()

    def string(text: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(text)) + text

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n(" + string(b"u1") + number(0) + number(1) + b"tR"
    dtype += b"(" + number(3) + string(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + string(b"b") + b"tR"
    array += b"(" + number(1) + b"(" + number(4) + number(3072) + b"t" + dtype + b"I00\n" + string(pixels) + b"tb"
    labels = b"(" + b"".join(number(label) for label in expected.labels) + b"l"
    batch = b"\x80\x02(" + string(b"data") + array + string(b"labels") + labels + b"d."
    (folder / "test_batch").write_bytes(batch)
    mine = load_transfer_set("cifar10", root, False, np.asarray)
    assert mine.labels == expected.labels
    np.testing.assert_array_equal(mine.images, expected.images)


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["test_batch", "batches.meta"])
def test_a_file_that_asks_for_code_is_refused_and_does_not_run(cifar: Write, tmp_path: Path, name: str) -> None:
    root = cifar("cifar10")
    path = root / FORMATS["cifar10"].folder / name
    path.write_bytes(pickle.dumps({"labels": Attack(tmp_path / "ran"), "label_names": ["a"]}))
    with pytest.raises(UserError, match=rf"{name}: is no sound CIFAR file \(it asks for \S*\.open"):
        load_transfer_set("cifar10", root, False, np.asarray)
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())  # the attack is a real one
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "module_and_name", ["os system", "builtins eval", "numpy load", "numpy._core.multiarray fromfile", "torch load"]
)
def test_every_other_global_is_refused(cifar: Write, module_and_name: str) -> None:
    root = cifar("cifar10")
    module, name = module_and_name.split()
    attack = b"c" + module.encode() + b"\n" + name.encode() + b"\n(S'x'\ntR."
    (root / FORMATS["cifar10"].folder / "batches.meta").write_bytes(attack)
    with pytest.raises(UserError, match=rf"asks for {module}\.{name}"):
        load_transfer_set("cifar10", root, True, np.asarray)


def test_missing_files_say_what_belongs_where(cifar: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cifar-100-python/train: is missing; unpack cifar-100-python\.tar\.gz"):
        load_transfer_set("cifar100", tmp_path / "none", True, np.asarray)
    root = cifar("cifar10")
    (root / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(
        UserError,
        match=r"data_batch_4: is missing; unpack cifar-10-python\.tar\.gz from .*, write prepare_data\.download",
    ):
        load_transfer_set("cifar10", root, True, np.asarray)
    with pytest.raises(UserError, match=r"data_batch_1: is missing; run prepare_data"):
        load_transfer_set("shifted-digits", root, True, np.asarray)


def test_damaged_batches(cifar: Write) -> None:
    root = cifar("cifar10")
    path = root / FORMATS["cifar10"].folder / "test_batch"
    sound = pickle.loads(path.read_bytes())
    for change, words in [
        ({"data": sound["data"][:, :100]}, "'data' is not an array of N x 3072 bytes"),
        ({"data": sound["data"].astype(float)}, "'data' is not an array"),
        ({"data": sound["data"][:3]}, "has 3 images and 4 labels"),
        ({"data": sound["data"][:0], "labels": []}, "has 0 images and 0 labels"),
        ({"labels": None}, "'labels' is not a list of whole numbers"),
        ({"labels": [0, 1, 2, 10]}, "labels from 0 to 10, but batches.meta names 10 classes"),
        ({"labels": [0, 1, 2, -1]}, "labels from -1 to 2"),
    ]:
        path.write_bytes(pickle.dumps(sound | change))
        with pytest.raises(UserError, match=f"test_batch: is no sound CIFAR file .*{words}"):
            load_transfer_set("cifar10", root, False, np.asarray)
    for content in (b"", b"text", pickle.dumps(sound)[:-100], pickle.dumps([sound])):
        path.write_bytes(content)
        with pytest.raises(UserError, match="test_batch: is no sound CIFAR file") as caught:
            load_transfer_set("cifar10", root, False, np.asarray)
        assert "\n" not in str(caught.value)


def test_made_sets_are_read_from_where_they_were_made() -> None:
    made = Path("results/prepare_data/transfer")
    assert transfer_root(None, "cifar10", made) == transfer_root(None, "shifted-digits", made) == made
    assert transfer_root("data", "shifted-digits", made) == made
    assert transfer_root("data", "cifar10", made) == Path("data")
