"""One file in a hundred is not what it should be, in ten ways: refused with the first named, or left out and listed."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.images import encoded, huge
from tests.helpers.jobs import make_job, run_job
from tests.helpers.params import changed, shipped_params
from tfnas.data import ImageDataset, eval_transform, make_loader, manifest_samples, read_manifest
from tfnas.jobs.errors import UserError
from tfnas.stages.params import Params

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
READABLE = {"cmyk", "grey16", "png", "rotated"}  # odd, but images


def write_odd_files(folder: Path) -> dict[str, Path]:
    """The ten kinds."""
    jpeg, exif = encoded(PICTURE, "JPEG"), Image.Exif()
    exif[0x0112] = 8
    grey = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40))
    contents = {
        "truncated": jpeg[: len(jpeg) // 2],
        "empty": jpeg[:0],
        "text": np.frombuffer(b"not found", dtype=np.uint8),
        "cmyk": encoded(PICTURE.convert("CMYK"), "JPEG"),
        "grey16": encoded(grey, "PNG"),
        "png": encoded(PICTURE, "PNG"),
        "huge": huge(jpeg.copy()),
        "rotated": encoded(PICTURE, "JPEG", exif=exif.tobytes()),
        "forbidden": jpeg,
    }
    paths = {name: folder / f"odd_{name}.JPEG" for name in (*contents, "folder")}
    for name, content in contents.items():
        content.tofile(paths[name])
    paths["forbidden"].chmod(0)
    paths["folder"].mkdir()
    return paths


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    """990 sound images of three classes and the ten others."""
    sound = encoded(PICTURE, "JPEG").tobytes()
    for number in range(990):
        path = tmp_path / "own" / ("val" if number % 10 == 0 else "train") / "abc"[number % 3] / f"{number:03d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound)
    return write_odd_files(tmp_path / "own" / "train" / "b")


@pytest.fixture
def params(tmp_path: Path) -> Params:
    source = {"source": "imagefolder", "root": str(tmp_path / "own"), "verify": True}
    return changed(shipped_params(), prepare_data=source, transfer={"datasets": []})


def broken_kinds(odd: dict[str, Path]) -> set[str]:
    """Permissions do not stop the root user."""
    return set(odd) - READABLE - ({"forbidden"} if os.access(odd["forbidden"], os.R_OK) else set())


def prepare(params: Params, folder: Path) -> Path:
    run_job(make_job("prepare_data", folder, params, {}))
    return folder


def test_error_names_the_first_and_counts_the_others(odd, params: Params, tmp_path: Path, caplog) -> None:
    first, count = odd["empty"], len(broken_kinds(odd))
    words = rf"{first}: is no image \(is empty\) \(and {count - 1} more, named in the log\); .*on_bad_image: skip"
    with pytest.raises(UserError, match=words):
        prepare(params, tmp_path / "out")
    assert all(str(odd[kind]) in caplog.text for kind in broken_kinds(odd))


def test_skip_leaves_them_out_and_lists_them(odd, params: Params, tmp_path: Path) -> None:
    out = prepare(changed(params, prepare_data={"on_bad_image": "skip"}), tmp_path / "out")
    with (out / "broken.csv").open(newline="") as file:
        listed = [row["path"] for row in csv.DictReader(file)]
    expected = {odd[kind].relative_to(tmp_path / "own").as_posix() for kind in broken_kinds(odd)}
    assert listed == sorted(expected)
    records = read_manifest(out / "manifest.csv")
    assert len(records) == 1000 - len(expected)
    assert not {record.path for record in records} & expected


def test_without_verification_the_loader_leaves_them_out(odd, params: Params, tmp_path: Path, caplog) -> None:
    settings = {"on_bad_image": "skip", "verify": False}
    out = prepare(changed(params, prepare_data=settings), tmp_path / "out")
    samples, _ = manifest_samples(read_manifest(out / "manifest.csv"), "train")
    dataset = ImageDataset(out / "images", samples, eval_transform(32))
    loader = make_loader(dataset, 50, shuffle=True, seed=0, drop_last=False, workers=2)
    missed = broken_kinds(odd) - {"empty", "folder"}  # which a folder tells
    assert sum(len(labels) for _, labels in loader) == len(samples) - len(missed)
    assert len(loader.broken) == len(missed)
    assert all(str(odd[kind]) in caplog.text for kind in missed)
    strict = ImageDataset(tmp_path / "own", samples, eval_transform(32))
    with pytest.raises(UserError, match=r"odd_\w+\.JPEG: cannot be read as an image"):
        list(make_loader(strict, 50, shuffle=True, seed=0, drop_last=False))


def test_a_batch_without_any_image_is_an_error_even_then(params: Params, tmp_path: Path, odd) -> None:
    out = prepare(changed(params, prepare_data={"on_bad_image": "skip"}), tmp_path / "out")
    gone = ImageDataset(out / "images", [("train/a/none.JPEG", 0)] * 4, eval_transform(32))
    with pytest.raises(UserError, match=r"none\.JPEG: cannot be read as an image \(No such file"):
        list(make_loader(gone, 2, shuffle=False, seed=0, drop_last=False))
