"""ONNX files that preprocess pictures themselves see what the training saw, and say how; by ONNX Runtime."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tfnas.cli import main
from tfnas.data import eval_transform
from tfnas.data.images.transforms import MEAN, STD
from tfnas.deploy import classify
from tfnas.deploy.export import export_onnx
from tfnas.deploy.preprocessing import (
    PIXEL_TOLERANCE,
    export_with_preprocessing,
    metadata,
    preprocessing_model,
    write_metadata,
)
from tfnas.jobs.errors import UserError
from tfnas.latency.backends.onnx_runtime import open_session

ROOT = Path(__file__).parents[2]
CLASSES, RESOLUTION = ("dark", "light", "middle"), 16  # of the network in conftest.py


def differences(picture: np.ndarray, resolution: int) -> np.ndarray:
    """Of each pixel, of 255, between the graph and the transform of our own validation; (3, resolution, resolution)."""
    session = open_session(preprocessing_model(resolution).SerializeToString(), threads=1)
    (images,) = session.run(None, {"image": picture})
    ours = eval_transform(resolution)(torch.from_numpy(picture).permute(2, 0, 1)).numpy()
    assert images.shape == (1, 3, resolution, resolution) and images.dtype == np.float32
    return 255 * abs(images[0] - ours) * np.array(STD)[:, None, None]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("resolution", [16, 96, 224])
@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 30), (40, 1), (2, 65), (64, 64), (64, 65), (65, 65), (96, 96), (224, 224), (500, 333), (333, 500)],
    ids=str,
)
def test_pictures_of_odd_sizes_within_one_of_255(size, resolution) -> None:
    assert differences(noise(*size), resolution).max() <= 1.01


@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([8, 20, 33]))
@example(height=2, width=8, resolution=33)  # four values differ by two
@settings(max_examples=60)
def test_any_size_is_seen_as_in_the_validation(height, width, resolution) -> None:
    """The rounding of the longer side and of the cut's corner is exact: a shift by one would show in noise.

    Both resize rows, then columns, and round each; where both roundings are of a half, they may differ by two.
    """
    found = differences(noise(height, width), resolution)
    assert found.max() <= PIXEL_TOLERANCE and (found > 1.01).mean() < 0.01


def test_the_same_size_is_not_touched() -> None:
    picture = noise(96, 96)
    session = open_session(preprocessing_model(96).SerializeToString(), threads=1)
    (images,) = session.run(None, {"image": picture})
    expected = (picture / 255 - MEAN) / STD
    np.testing.assert_allclose(images[0].transpose(1, 2, 0), expected, atol=1e-5)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    """Real pictures: the README's and the docs' own, cut to odd sizes, as JPEG."""
    folder, found = tmp_path_factory.mktemp("photographs"), []
    with Image.open(ROOT / "docs/images/report.png") as opened:
        page = opened.convert("RGB")
    for number, box in enumerate(((0, 0, 301, 77), (10, 10, 61, 400), (0, 0, 63, 64), (5, 5, 505, 338))):
        found.append(folder / f"{number}.jpg")
        page.crop(box).save(found[-1], quality=95)
    return found


def test_the_file_gives_classifys_probabilities_of_real_pictures(network, tmp_path, photographs) -> None:
    export_onnx(network, RESOLUTION, tmp_path / "small.onnx")
    made = export_with_preprocessing(network, RESOLUTION, tmp_path / "small.onnx", threads=1, tolerance=1e-4)
    assert made.path == tmp_path / "small_with_preprocessing.onnx"
    assert made.levels <= 1.01 and made.difference <= 1e-5
    session = open_session(str(made.path), threads=1)
    for file in photographs:
        image = np.asarray(Image.open(file).convert("RGB"))
        (probabilities,) = session.run(None, {"image": image})
        ours = dict(classify(network, file, CLASSES, resolution=RESOLUTION))
        assert probabilities.shape == (len(CLASSES),) and probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert probabilities == pytest.approx([ours[name] for name in CLASSES], abs=0.02)


def test_a_file_that_is_not_the_network_is_refused_and_removed(network, tmp_path) -> None:
    export_onnx(network, RESOLUTION, tmp_path / "small.onnx")
    with torch.no_grad():
        network.get_submodule("classifier.linear").weight.mul_(-1.0)
    with pytest.raises(UserError, match=r"small_with_preprocessing.onnx: pixels differ by"):
        export_with_preprocessing(network, RESOLUTION, tmp_path / "small.onnx", threads=1, tolerance=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_metadata_come_back_and_leave_the_graph_alone(network, tmp_path) -> None:
    path = tmp_path / "small.onnx"
    export_onnx(network, RESOLUTION, path)
    before = onnx.load(path).graph
    names = ['with "quotes"', "größe", "a, b"]
    facts = metadata("small", 224, classes=names, exif="apply", latency={"ms": {"ONNX Runtime": 1.5}})
    write_metadata(path, facts)
    found = open_session(str(path), threads=1).get_modelmeta().custom_metadata_map
    assert found == facts and json.loads(found["classes"]) == names
    assert (json.loads(found["size"]), json.loads(found["resize_shorter_side"])) == (224, 256)
    assert (json.loads(found["mean"]), json.loads(found["std"])) == (list(MEAN), list(STD))
    assert json.loads(found["latency"])["ms"]["ONNX Runtime"] == 1.5
    assert onnx.load(path).graph == before


def test_metadata_are_enough_to_do_it_by_hand() -> None:
    """Pillow's resize by the rule that the metadata state gives the same pixels."""
    said = metadata("x", 96, classes=[], exif="apply", latency={})
    facts = {name: json.loads(said[name]) for name in ("size", "resize_shorter_side", "uncut_up_to", "mean", "std")}
    for size in ((120, 333), (60, 50), (400, 201)):
        picture = Image.fromarray(noise(*size))
        shorter = min(picture.size)
        side = facts["size"] if shorter <= facts["uncut_up_to"] else facts["resize_shorter_side"]
        width, height = (side * length // shorter for length in picture.size)
        resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        top, left = round((height - 96) / 2), round((width - 96) / 2)
        pixels = (resized[top : top + 96, left : left + 96] / 255 - facts["mean"]) / facts["std"]
        ours = eval_transform(96)(picture).permute(1, 2, 0).numpy()
        assert 255 * (abs(pixels - ours) * facts["std"]).max() <= 1.01


@pytest.fixture
def exported(files, tmp_path, monkeypatch) -> Path:
    """The folder that `tfnas export --with-preprocessing` wrote, of a network whose classes are known."""
    folder = tmp_path / "retrain"
    folder.mkdir()
    files[1].rename(folder / "weights.pt")
    rows = "".join(f"val,{name},{name}/1.png,9\n" for name in CLASSES)
    (tmp_path / "manifest.csv").write_text("split,class,path,bytes\n" + rows)
    from tfnas.jobs.artifacts import digest_file

    origin = {
        "kind": "provenance",
        "format_version": 1,
        "stage": "retrain",
        "params": {"resolution": RESOLUTION, "prepare_data": {"source": "digits"}},
        "inputs": {str(files[0]): "0" * 64, str(tmp_path / "manifest.csv"): digest_file(tmp_path / "manifest.csv")},
    }
    (folder / "provenance.json").write_text(json.dumps(origin))
    options = ["--formats", "onnx", "--with-preprocessing", "--repeats", "1"]
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(folder / "weights.pt"), "--out", "out", *options]) == 0
    return tmp_path / "out"


def python_programs(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_command_writes_it_with_classes_and_the_programs_run(
    exported, network, photographs, monkeypatch, capsys
) -> None:
    assert sorted(path.name for path in exported.glob("*.onnx")) == ["small.onnx", "small_with_preprocessing.onnx"]
    card = (exported / "MODEL_CARD.md").read_text()
    for path in exported.glob("*.onnx"):
        found = open_session(str(path), threads=1).get_modelmeta().custom_metadata_map
        assert json.loads(found["classes"]) == list(CLASSES) and found["network"] == "small"
        assert json.loads(found["latency"])["ms"]["ONNX Runtime"] > 0
    monkeypatch.chdir(exported)
    Path("picture.jpg").write_bytes(photographs[0].read_bytes())
    expected = classify(network, "picture.jpg", CLASSES, resolution=RESOLUTION)[0]
    _, short = python_programs(card)
    docs = (ROOT / "docs/training.md").read_text()
    (shown,) = (
        text for text in re.findall(r"((?:^    .*\n|^\n)+)", docs, re.MULTILINE) if "_with_preprocessing.onnx" in text
    )
    shown = re.sub(r'"[^"]*_with_preprocessing.onnx"', '"small_with_preprocessing.onnx"', shown)
    capsys.readouterr()
    for program in (short, re.sub("^    ", "", shown, flags=re.MULTILINE)):
        exec(program, {})
        name, probability = capsys.readouterr().out.split()
        assert name == expected[0] and float(probability) == pytest.approx(expected[1], abs=0.02)


def test_preprocessing_without_onnx_is_refused_before_any_work(files, tmp_path, capsys) -> None:
    options = ["--formats", "pt2", "--with-preprocessing"]
    assert main(["export", str(files[1]), "--out", str(tmp_path / "out"), *options]) == 2
    assert "--with-preprocessing: is for ONNX; add onnx to --formats" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
