"""Packed images, and the folders that say where images are."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.images import WNIDS
from tfnas.data import ImageDataset, eval_transform, image_root
from tfnas.data.images import stores as stores_module
from tfnas.data.images.decoding import read_image
from tfnas.data.images.stores import PackStore, describe, materialize, open_store, write_source
from tfnas.data.params import MaterializeParams
from tfnas.data.sources.cifar import load_transfer_set
from tfnas.data.sources.cifar_files import list_cifar
from tfnas.data.sources.image_folder import scan_image_folder
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.errors import UserError

PATHS = [f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in WNIDS for number in range(4)]


def packed(root: Path, folder: Path, **changes) -> Path:
    params = MaterializeParams.model_validate({"format": "raw", "shorter_side": 20, "quality": 95} | changes)
    materialize(root, PATHS, params, folder, threads=2)
    return folder


def test_raw_images_are_those_of_the_files_when_they_are_not_larger(image_folder: Path, tmp_path: Path) -> None:
    store, _ = open_store(packed(image_folder, tmp_path / "pack", shorter_side=24))
    for path in PATHS:
        picture = store.read(path)
        assert torch.equal(picture, read_image(image_folder / path)) and picture.stride() == (1, 72, 3)


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_the_shorter_side_is_resized_once(image_folder: Path, tmp_path: Path, form: str) -> None:
    store, _ = open_store(packed(image_folder, tmp_path / "pack", format=form, shorter_side=16))
    assert {store.read(path).shape for path in PATHS} == {(3, 20, 16)}


def test_validation_images_of_a_pack_of_their_size_are_those_of_the_files(image_folder: Path, tmp_path: Path) -> None:
    """Both resize the shorter side to 256/224 of the resolution, by the same function."""
    large = tmp_path / "large"
    for path in PATHS:
        (large / path).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (100, 130, 3), dtype=np.uint8)
        Image.fromarray(noise).save(large / path)
    samples = [(path, 0) for path in PATHS]
    root = packed(large, tmp_path / "pack", shorter_side=80)
    transform = eval_transform(70)
    for index in range(len(samples)):
        mine = ImageDataset(root, samples, transform)[index][0]
        assert torch.equal(mine, ImageDataset(large, samples, transform)[index][0])


def test_many_files_and_the_same_bytes_each_time(image_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(stores_module, "ROWS", 2)
    monkeypatch.setattr(stores_module, "FILE_BYTES", 5000)
    first, second = (packed(image_folder, tmp_path / name) for name in ("first", "second"))
    assert digest_file(first) == digest_file(second)
    assert len(list(first.glob("*.arrow"))) == 3
    store = PackStore(first)
    assert len(store) == len(PATHS)
    again = pickle.loads(pickle.dumps(store))
    assert all(torch.equal(store.read(path), again.read(path)) for path in PATHS)


def test_a_pack_opens_with_pyarrow_alone(image_folder: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    folder = packed(image_folder, tmp_path / "pack", shorter_side=24)
    table = pa.ipc.open_file(folder / "images-00000.arrow").read_all()
    assert table.column_names == ["path", "height", "width", "image"]
    row = table.slice(5, 1).to_pylist()[0]
    pixels = np.frombuffer(row["image"], dtype=np.uint8).reshape(row["height"], row["width"], 3)
    np.testing.assert_array_equal(pixels.transpose(2, 0, 1), read_image(image_folder / row["path"]))


def test_damaged_packs_are_one_line(image_folder: Path, tmp_path: Path) -> None:
    folder = packed(image_folder, tmp_path / "pack")
    with pytest.raises(UserError, match=r"holds no image 'x\.jpg'; run build_subset again"):
        PackStore(folder).read("x.jpg")
    file = folder / "images-00000.arrow"
    for content in (b"", b"text", file.read_bytes()[:1000]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"images-00000\.arrow: is damaged or no file of images"):
            PackStore(folder)
    file.unlink()
    with pytest.raises(UserError, match=r"holds no images-\*\.arrow"):
        PackStore(folder)


def test_images_that_stay_are_pointed_at_and_made_ones_are_packed(image_folder: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "source", describe("folder", str(image_folder), "skip"))
    pointing = packed(tmp_path / "source", tmp_path / "pointing", format="none")
    assert [path.name for path in pointing.iterdir()] == ["source.json"]
    store, skips = open_store(pointing)
    assert skips and torch.equal(store.read(PATHS[0]), read_image(image_folder / PATHS[0]))
    made = packed(image_folder, tmp_path / "made", format="none", shorter_side=8)
    assert torch.equal(open_store(made)[0].read(PATHS[0]), read_image(image_folder / PATHS[0]))


def test_images_are_where_a_stage_or_the_parameters_say(tmp_path: Path) -> None:
    assert image_root(None, tmp_path / "made") == tmp_path / "made"
    assert image_root("data/imagenet", tmp_path / "made") == Path("data/imagenet")
    write_source(tmp_path / "made", describe("folder", "elsewhere", "error"))
    assert image_root("data/imagenet", tmp_path / "made") == tmp_path / "made"


def test_a_source_that_is_damaged(tmp_path: Path) -> None:
    write_source(tmp_path / "odd", describe("tape", None, "error"))
    with pytest.raises(UserError, match=r"source\.json: store 'tape' is unknown"):
        open_store(tmp_path / "odd")
    (tmp_path / "odd" / "source.json").write_text("{")
    with pytest.raises(UserError, match=r"source\.json: is not valid JSON"):
        open_store(tmp_path / "odd")


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_cifar_as_a_data_set_to_search_on(cifar, tmp_path: Path, dataset: str) -> None:
    root = cifar(dataset)
    write_source(tmp_path / "source", describe(dataset, str(root), "error"))
    store, _ = open_store(tmp_path / "source")
    records = list_cifar(root, dataset)
    assert records == sorted(records) and len(records) == 17
    for split, train in (("train", True), ("val", False)):
        expected = load_transfer_set(dataset, root, train, lambda picture: picture)
        mine = sorted((r for r in records if r.split == split), key=lambda record: record.path)
        assert [r.class_name for r in mine] == [expected.classes[label] for label in expected.labels]
        assert all(torch.equal(store.read(r.path), expected[i][0]) for i, r in enumerate(mine))
    with pytest.raises(UserError, match="there is no such CIFAR image"):
        store.read("cifar-10-batches-py/none/3")


def test_nothing_of_the_folder_is_changed(image_folder: Path, tmp_path: Path) -> None:
    before = digest_file(image_folder)
    packed(image_folder, tmp_path / "pack")
    assert digest_file(image_folder) == before and len(scan_image_folder(image_folder).records) == 18


def test_what_prepare_data_says_of_exif_reaches_every_reader(tmp_path: Path) -> None:
    """Image files through source.json, the pack of a subset, and a folder that only says where its images are."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "own").mkdir()
    Image.new("RGB", (50, 40)).save(tmp_path / "own" / "a.jpg", exif=exif.tobytes())
    raw = MaterializeParams(format="raw", shorter_side=64, quality=95)
    for value, shape in (("apply", (3, 50, 40)), ("ignore", (3, 40, 50))):
        folder = tmp_path / value
        write_source(folder / "images", describe("folder", str(tmp_path / "own"), "error", value))
        materialize(folder / "images", ["a.jpg"], raw, folder / "pack", threads=1)
        materialize(folder / "images", ["a.jpg"], raw.model_copy(update={"format": "none"}), folder / "link", threads=1)
        materialize(tmp_path / "own", ["a.jpg"], raw, folder / "plain", threads=1, exif=value)
        for name in ("images", "pack", "link", "plain"):
            dataset = ImageDataset(folder / name, [("a.jpg", 0)], lambda picture: picture)
            assert dataset[0][0].shape == shape, (value, name)
        plain = ImageDataset(tmp_path / "own", [("a.jpg", 0)], lambda picture: picture, exif=value)
        assert plain[0][0].shape == shape
    assert open_store(tmp_path / "own")[0].read("a.jpg").shape == (3, 50, 40)
    source = describe("folder", str(tmp_path / "own"), "error")
    del source["exif"]  # as written before there was a choice
    write_source(tmp_path / "old", source)
    assert open_store(tmp_path / "old")[0].read("a.jpg").shape == (3, 40, 50)
