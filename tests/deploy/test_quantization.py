"""8 bits: accuracy before and after, on the card and in the file; what is refused, and that nothing stays behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.runtimes import int8_param
from tfnas.cli import main
from tfnas.deploy.evaluation import read_image_set
from tfnas.deploy.export import run_onnx
from tfnas.deploy.load import Origin
from tfnas.deploy.quantization import calibration_inputs, read_image_sets, top1_percent
from tfnas.jobs.artifacts import digest_file
from tfnas.space import Architecture, Block, Head, Stem, build_network
from tfnas.train.weights import save_weights

SIZE, TRAIN, VAL = 16, 100, 30  # pixels; images per class
FORMATS = [int8_param("onnx"), int8_param("openvino")]
ARCHITECTURE = Architecture(
    name="digits",
    space="test",
    stem=Stem(kernel=3, in_channels=3, out_channels=8, stride=1, act="relu6"),
    blocks=(
        Block(3, 8, 24, 0, 16, "relu6", 2),
        Block(3, 16, 48, 0, 16, "relu6", 1),
        Block(5, 16, 40, 0, 24, "relu6", 2),
    ),
    head=Head(out_channels=48, act="relu6"),
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """train/<class>/* and val/<class>/*: scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    root, found = tmp_path_factory.mktemp("digits"), load_digits()
    for label in range(10):
        pictures = found.images[found.target == label][: TRAIN + VAL]
        for number, picture in enumerate(pictures):
            path = root / ("train" if number < TRAIN else "val") / str(label) / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((picture * 15.9).astype(np.uint8)).resize((SIZE, SIZE)).convert("RGB").save(path)
    return root


@pytest.fixture(scope="module")
def trained(digits) -> nn.Module:
    """A network that has learned the digits."""
    torch.manual_seed(0)
    data, _ = read_image_set(digits, SIZE, split="train")
    images = torch.stack([image for image, _ in data])
    labels = torch.tensor([label for _, label in data])
    network = build_network(ARCHITECTURE, 10).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(12):
        for chosen in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return network.eval()


@pytest.fixture
def weights(trained, digits, tmp_path) -> Path:
    """weights.pt as retrain leaves it: its provenance names manifest.csv, next to which images/ is."""
    save_weights(trained, tmp_path / "weights.pt")
    ARCHITECTURE.save(tmp_path / "architecture.json")
    made = tmp_path / "prepare_data"
    made.mkdir()
    (made / "images").symlink_to(digits)
    rows = [
        f"{split},{path.parent.name},{path.relative_to(digits)},{path.stat().st_size}\n"
        for split in ("train", "val")
        for path in sorted((digits / split).rglob("*.png"))
    ]
    (made / "manifest.csv").write_text("split,class,path,bytes\n" + "".join(rows))
    inputs = {str(path): digest_file(path) for path in (tmp_path / "architecture.json", made / "manifest.csv")}
    params = {"resolution": SIZE, "prepare_data": {"source": "digits"}, "retrain": {"batch_size": 8}}
    fields = {"kind": "provenance", "format_version": 1, "stage": "retrain", "params": params, "inputs": inputs}
    (tmp_path / "provenance.json").write_text(json.dumps(fields))
    return tmp_path / "weights.pt"


def command(weights: Path, *more: str) -> list[str]:
    return ["export", str(weights), "--out", str(weights.with_name("out")), "--repeats", "1", *more]


INT8 = ("--precision", "int8", "--calibration-images", "64")


@pytest.mark.parametrize("name", FORMATS)
def test_8_bits_keep_the_accuracy_which_is_on_the_card_and_printed(name, weights, trained, digits, capsys) -> None:
    assert main(command(weights, *INT8, "--formats", name)) == 0
    printed, card = capsys.readouterr().out, (weights.parent / "out" / "MODEL_CARD.md").read_text()
    before = top1_percent(trained, read_image_set(digits, SIZE)[0])
    assert before > 85
    (line,) = [line for line in printed.splitlines() if "_int8." in line]
    after = float(line.split("top-1 ")[1].split(" %")[0])
    assert before - after <= 1.0 and f"in float32 {before:.2f} %; calibrated on 64 training images" in line
    assert f"top-1 {after:.2f} % on {10 * VAL} validation images" in card
    assert f"{'ONNX Runtime' if name == 'onnx' else 'OpenVINO'} int8 |" in card
    assert printed.count(" int8 ") == 1


def test_the_onnx_file_is_a_quarter_in_size_takes_any_batch_and_says_what_it_is(weights, trained, digits) -> None:
    import onnx

    assert main(command(weights, *INT8, "--formats", "onnx")) == 0
    plain, small = (weights.parent / "out" / name for name in ("digits.onnx", "digits_int8.onnx"))
    kept = {init.data_type for init in onnx.load(small).graph.initializer if len(init.dims) == 4}
    assert kept == {onnx.TensorProto.INT8}
    facts = {p.key: p.value for p in onnx.load(small).metadata_props}
    plain_facts = {p.key: p.value for p in onnx.load(plain).metadata_props}
    assert facts == plain_facts | {"precision": "int8"} and plain_facts["precision"] == "float32"
    images = torch.stack([image for image, _ in read_image_set(digits, SIZE)[0]])
    run = run_onnx(small, threads=1)
    one_by_one = torch.cat([run(image) for image in images[:9].split(1)])
    assert torch.equal(run(images[:9]), one_by_one)


def test_with_preprocessing_is_the_8_bit_network_behind_its_preprocessing(weights, digits) -> None:
    from tfnas.latency.backends.onnx_runtime import open_session

    assert main(command(weights, *INT8, "--formats", "onnx", "--with-preprocessing")) == 0
    out = weights.parent / "out"
    assert [path.name for path in sorted(out.glob("*preprocessing*"))] == ["digits_int8_with_preprocessing.onnx"]
    whole = open_session(str(out / "digits_int8_with_preprocessing.onnx"), threads=1)
    assert whole.get_modelmeta().custom_metadata_map["precision"] == "int8"
    run, data = run_onnx(out / "digits_int8.onnx", threads=1), read_image_set(digits, SIZE)[0]
    for index in range(0, 10 * VAL, VAL):
        image, label = data[index]
        path = sorted((digits / "val" / str(label)).iterdir())[0]
        (probabilities,) = whole.run(None, {"image": np.asarray(Image.open(path))})
        np.testing.assert_allclose(probabilities, run(image[None]).softmax(1)[0], atol=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_costs_more_than_the_limit_is_refused_and_removed(name, weights, monkeypatch, capsys) -> None:
    """Calibrated on images that are almost black, activations are cut off at nearly nothing."""
    dark = [np.full((1, 3, SIZE, SIZE), 1e-3, np.float32)]
    monkeypatch.setattr("tfnas.deploy.quantization.calibration_inputs", lambda images, count: dark)
    assert main(command(weights, *INT8, "--formats", name)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in ("top-1 falls from", "--max-drop 1", "removed", "--calibration-images"))
    assert not list((weights.parent / "out").glob("*int8*"))
    assert main(command(weights, *INT8, "--formats", name, "--max-drop", "100")) == 0


def test_calibration_images_are_of_all_classes_and_of_the_training_set(digits, trained) -> None:
    sets = read_image_sets(Origin({}), trained, SIZE, data=digits)
    inputs = calibration_inputs(sets.train, 20)
    labels = [label for given in inputs for image, label in sets.train if np.array_equal(image[None].numpy(), given)]
    assert len(inputs) == 20 and {*labels} == {*range(10)}
    assert len(calibration_inputs(sets.train, 10**6)) == 10 * TRAIN == len(sets.train)
    assert len(sets.val) == 10 * VAL


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--precision", "int8", "--formats", "pt2"), ("onnx and openvino", "--formats")),
        (("--precision", "int8", "--max-drop", "-1"), ("--max-drop -1", "0 or more")),
        (("--precision", "int8", "--calibration-images", "0"), ("--calibration-images 0",)),
        (("--data", "images"), ("--precision int8", "leave --data out")),
        (("--precision", "int8", "--data", "no/such"), ("no/such", "no such folder")),
    ],
)
def test_mistakes_are_one_line_before_any_work(weights, capsys, more, words) -> None:
    assert main(command(weights, *more)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error
    assert not (weights.parent / "out").exists()


def test_without_its_images_the_option_that_gives_them_is_named(weights, capsys) -> None:
    (weights.parent / "prepare_data" / "images").unlink()
    assert main(command(weights, *INT8)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--data DIR" in error
    assert not (weights.parent / "out").exists()


def test_images_without_a_training_part_or_of_other_classes_are_refused(weights, digits, tmp_path, capsys) -> None:
    (tmp_path / "val").symlink_to(digits / "val")
    assert main(command(weights, *INT8, "--data", str(tmp_path))) == 2
    assert "no training images" in capsys.readouterr().err
    for split in ("train", "val"):
        for label in ("0", "1"):
            (tmp_path / "two" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "two" / split / label).symlink_to(digits / split / label)
    assert main(command(weights, *INT8, "--data", str(tmp_path / "two"))) == 2
    assert "2 classes, the network 10" in capsys.readouterr().err


def test_random_weights_are_refused(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "TF-NAS-D", "--out", "out", "--precision", "int8"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no trained weights" in error and "tfnas compare" in error


def test_float32_stays_as_it_was(weights) -> None:
    assert main(command(weights, "--formats", "onnx")) == 0
    assert not list((weights.parent / "out").glob("*int8*"))
    assert "int8" not in (weights.parent / "out" / "MODEL_CARD.md").read_text()
