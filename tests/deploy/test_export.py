"""Exports run with any batch, give eager's logits, and are refused when they do not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from tests.helpers.runtimes import NEEDS, RUNTIME_PARAMS
from tfnas.cli import main
from tfnas.cli.export import FORMATS, RUNTIMES, fresh_network
from tfnas.deploy import classify
from tfnas.deploy.export import EXPORTS, export_checked, files_of, max_difference
from tfnas.deploy.export import RUNTIMES as CONVERTING
from tfnas.deploy.load import Origin, TrainedOn, read_origin, read_trained_on
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.errors import UserError
from tfnas.space import zoo

CLASSES = ("dark", "light", "middle")


@pytest.fixture(scope="module")
def converted() -> dict[tuple[int, bytes], bytes]:
    """ONNX files by resolution and weights."""
    return {}


@pytest.fixture(autouse=True)
def one_conversion(converted, monkeypatch) -> None:
    """A network is converted to ONNX once, which takes seconds; each export of the same file is still checked."""
    write, load = EXPORTS["onnx"]

    def write_once(network, resolution: int, path: Path) -> None:
        key = resolution, b"".join(value.numpy().tobytes() for value in network.state_dict().values())
        if key not in converted:
            write(network, resolution, path)
            converted[key] = path.read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(converted[key])

    monkeypatch.setitem(EXPORTS, "onnx", (write_once, load))


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_any_batch_and_eagers_logits(network, tmp_path, suffix) -> None:
    runner = export_checked(network, 16, tmp_path / f"network.{suffix}", threads=1, tolerance=1e-4)
    for size in (1, 2, 7, 33):
        images = torch.randn(size, 3, 16, 16)
        np.testing.assert_allclose(runner(images).detach(), network(images).detach(), atol=1e-5)
    assert 0 <= runner.difference < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == [f"network.{suffix}"]


@pytest.mark.parametrize("name", RUNTIME_PARAMS)
def test_a_runtimes_file_gives_eagers_logits_wherever_it_lies(name, network, tmp_path) -> None:
    path = tmp_path / f"network.{FORMATS[name]}"
    checked = export_checked(network, 16, path, threads=1, tolerance=1e-4)
    assert 0 <= checked.difference < 1e-5
    assert sorted(tmp_path.iterdir()) == sorted(files_of(path))
    (tmp_path / "elsewhere").mkdir()
    moved = [file.rename(tmp_path / "elsewhere" / file.name) for file in files_of(path)]
    _, load = EXPORTS[path.suffix.removeprefix(".")]
    images = torch.randn(3, 3, 16, 16)
    found = load(moved[0], threads=1)(images)
    np.testing.assert_allclose(found, network(images).detach(), atol=1e-5)


def test_every_format_has_its_writer_and_a_name_on_the_card() -> None:
    suffixes = [Path(f"network.{end}").suffix for end in FORMATS.values()]
    assert suffixes == [f".{suffix}" for suffix in EXPORTS] == list(RUNTIMES)
    assert {name: FORMATS[name] for name in NEEDS} == {runtime.name: runtime.suffix for runtime in CONVERTING.values()}


@pytest.mark.parametrize("name", [p for p in RUNTIME_PARAMS if p.values[0] in ("openvino", "ncnn")])
def test_the_card_lists_the_weights_file_of_a_runtime(retrained, tmp_path, name) -> None:
    out = tmp_path / "out"
    assert main(["export", str(retrained), "--out", str(out), "--repeats", "1", "--formats", name]) == 0
    card, path = (out / "MODEL_CARD.md").read_text(), out / f"small.{FORMATS[name]}"
    assert "one image (N = 1)" in card
    for file in files_of(path):
        assert re.search(rf"^\| `{re.escape(file.name)}` \|.*\| {digest_file(file)[:16]} \|$", card, re.MULTILINE)


def test_a_runtime_that_is_not_installed_is_one_line_before_any_work(retrained, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pnnx", None)
    monkeypatch.setattr("tfnas.jobs.extras._is_there", lambda module: module != "pnnx")
    assert main(["export", str(retrained), "--out", str(tmp_path / "out"), "--formats", "onnx,ncnn"]) == 2
    error = capsys.readouterr().err
    assert "tfnas export --formats ncnn: needs pnnx" in error and "pip install 'tfnas[ncnn]'" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_onnx_file_is_whole_and_valid(network, tmp_path) -> None:
    export_checked(network, 16, tmp_path / "network.onnx", threads=1, tolerance=1e-4)
    model = onnx.load(tmp_path / "network.onnx")
    onnx.checker.check_model(model, full_check=True)
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    shape = images.type.tensor_type.shape.dim
    assert shape[0].dim_param == "batch" and [dim.dim_value for dim in shape[1:]] == [3, 16, 16]


def test_the_difference_is_the_largest_of_all_logits(network) -> None:
    assert max_difference(network, network, 16) == 0
    assert max_difference(network, lambda x: network(x) + torch.eye(x.shape[0], 3) / 4, 16) == pytest.approx(0.25)


def test_an_export_that_is_not_the_network_is_refused_and_removed(network, tmp_path, monkeypatch) -> None:
    write, _ = EXPORTS["pt2"]
    monkeypatch.setitem(EXPORTS, "pt2", (write, lambda path, threads: lambda x: network(x) * 1.5))
    with pytest.raises(UserError, match=r"network.pt2: logits differ from eager's by"):
        export_checked(network, 16, tmp_path / "network.pt2", threads=1, tolerance=1e-4)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def retrained(files, tmp_path) -> Path:
    """The weights as retrain leaves them: with provenance and metrics."""
    folder = tmp_path / "retrain"
    folder.mkdir()
    files[1].rename(folder / "weights.pt")
    rows = "".join(f"val,{name},{name}/1.png,9\n" for name in CLASSES)
    (tmp_path / "manifest.csv").write_text("split,class,path,bytes\n" + rows)
    recipe = {"batch_size": 8, "accumulate": 2, "learning_rate": 0.123}
    params = {"resolution": 16, "device.threads": 1, "prepare_data": {"source": "digits"}, "retrain": recipe}
    origin = {
        "kind": "provenance",
        "format_version": 1,
        "stage": "retrain",
        "git_commit": "abc",
        "params": params | {"targets.A.dropout": 0.3},
        "inputs": {str(files[0]): "0" * 64, str(tmp_path / "manifest.csv"): digest_file(tmp_path / "manifest.csv")},
        "packages": {"torch": "2"},
    }
    (folder / "provenance.json").write_text(json.dumps(origin))
    (folder / "metrics.json").write_text(json.dumps({"top1_percent": 87.5, "loss": 0.5}))
    return folder / "weights.pt"


def test_the_command_writes_files_and_a_card(retrained, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["export", str(retrained), "--out", str(out), "--repeats", "2"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "MODEL_CARD.md",
        "architecture.svg",
        "classes.txt",
        "small.onnx",
        "small.pt2",
    ]
    printed, card = capsys.readouterr().out, (out / "MODEL_CARD.md").read_text()
    for runtime in ("torch eager", "ONNX Runtime", "torch.export"):
        (shown,) = re.findall(rf"{runtime} (\d+\.\d+) ms", printed)
        assert re.search(rf"^\| {runtime} \|.* {shown} \|$", card, re.MULTILINE)
    for fact in (
        "scikit-learn's digits",
        "top-1 %: 87.5",
        "| learning_rate | 0.123 |",
        "| dropout | 0.3 |",
        "3 images of scikit-learn's digits",
        "`dark`, `light`, `middle`",
        "commit: abc",
    ):
        assert fact in card, fact


@pytest.mark.parametrize(
    ("keep", "words"),
    [("last", "after the last epoch:"), ("best", "after epoch 3 of 9, the best on these very images")],
)
def test_the_card_says_which_epoch_it_is(retrained, tmp_path, keep, words) -> None:
    origin = json.loads(retrained.with_name("provenance.json").read_text())
    origin["params"]["retrain"]["keep"] = keep
    retrained.with_name("provenance.json").write_text(json.dumps(origin))
    metrics = {"top1_percent": 87.5, "loss": 0.5, "epochs": 9, "kept_epoch": 3 if keep == "best" else 9}
    retrained.with_name("metrics.json").write_text(json.dumps(metrics))
    assert main(["export", str(retrained), "--out", str(tmp_path), "--formats", "onnx", "--repeats", "1"]) == 0
    assert words in (tmp_path / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("size", [(90, 200), (64, 70)])
def test_the_cards_program_gives_our_class(retrained, network, tmp_path, monkeypatch, capsys, size) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(retrained), "--out", ".", "--formats", "onnx", "--repeats", "1"]) == 0
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("picture.jpg")
    (program,) = re.findall(r"^```python\n(.*?)^```", Path("MODEL_CARD.md").read_text(), re.MULTILINE | re.DOTALL)
    capsys.readouterr()
    found: dict[str, object] = {}
    exec(program, found)
    ours = classify(network, "picture.jpg", CLASSES, resolution=16)
    assert capsys.readouterr().out.strip() == ours[0][0]
    theirs = torch.tensor(found["logits"][0]).softmax(0)
    assert [float(theirs[CLASSES.index(name)]) for name, _ in ours] == pytest.approx([p for _, p in ours], abs=0.02)


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_the_cards_program_turns_and_composites_as_the_training(
    retrained, network, tmp_path, monkeypatch, capsys, exif: str
) -> None:
    monkeypatch.chdir(tmp_path)
    provenance = json.loads(retrained.with_name("provenance.json").read_text())
    provenance["params"]["prepare_data"]["exif"] = exif
    retrained.with_name("provenance.json").write_text(json.dumps(provenance))
    assert main(["export", str(retrained), "--out", ".", "--formats", "onnx", "--repeats", "1"]) == 0
    pixels, tag = np.full((64, 64, 4), 255, dtype=np.uint8), Image.Exif()
    pixels[:20, :, 1:3], pixels[40:, :30], pixels[20:40, :, 3], tag[0x0112] = 0, (0, 0, 0, 255), 0, 8
    Image.fromarray(pixels).save("picture.jpg", "PNG", exif=tag.tobytes())
    (program,) = re.findall(r"^```python\n(.*?)^```", Path("MODEL_CARD.md").read_text(), re.MULTILINE | re.DOTALL)
    found: dict[str, object] = {}
    exec(program, found)
    ours, other = (
        dict(classify(network, "picture.jpg", CLASSES, resolution=16, exif=value))
        for value in (exif, {"apply": "ignore", "ignore": "apply"}[exif])
    )
    theirs = torch.tensor(found["logits"][0]).softmax(0).tolist()
    near, far = (max(abs(row[name] - p) for name, p in zip(CLASSES, theirs, strict=True)) for row in (ours, other))
    assert near < 0.01 and near < far / 3


def test_classes_of_another_data_set_are_not_taken(retrained, tmp_path) -> None:
    assert read_trained_on(read_origin(retrained)) == TrainedOn("scikit-learn's digits", CLASSES, 3)
    with (tmp_path / "manifest.csv").open("a") as file:
        file.write("val,other,other/1.png,9\n")
    assert read_trained_on(read_origin(retrained)) == TrainedOn("scikit-learn's digits")


def test_inputs_are_those_of_the_weights_own_project(tmp_path, monkeypatch) -> None:
    recorded = "results/derive/A/architecture.json"
    for project in ("one", "two"):
        file = tmp_path / project / recorded
        file.parent.mkdir(parents=True)
        file.write_text(project)
    fields = {"inputs": {recorded: digest_file(tmp_path / "one" / recorded)}}
    origin = Origin(fields, tmp_path / "one" / "results" / "retrain" / "A")
    monkeypatch.chdir(tmp_path / "two")
    assert (
        origin.unchanged_input("architecture.json")
        == origin.input_named("architecture.json")
        == (tmp_path / "one" / recorded)
    )
    moved = Origin(fields, tmp_path / "moved")
    assert moved.input_named("architecture.json") == Path(recorded)
    assert moved.unchanged_input("architecture.json") is None
    monkeypatch.chdir(tmp_path)
    assert moved.input_named("architecture.json") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--formats", "onnx,tflite"], "--formats 'tflite': unknown format; known: onnx, pt2, openvino"),
        (["--repeats", "0"], "--repeats 0: must be 1 or more"),
        (["--architecture", "TF-NAS-Z"], "unknown network 'TF-NAS-Z'"),
        (["--table", "none.json"], "none.json: cannot be read"),
    ],
)
def test_mistakes_are_one_line_before_any_work(retrained, tmp_path, capsys, options, words) -> None:
    assert main(["export", str(retrained), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_weights_of_unknown_origin_need_an_architecture(files, tmp_path, capsys) -> None:
    assert main(["export", str(files[1]), "--out", str(tmp_path / "out")]) == 2
    assert "pass --architecture NETWORK" in capsys.readouterr().err


def test_a_network_alone_is_exported_with_random_weights_and_says_so(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--resolution", "32", "--repeats", "1", "--formats", "pt2"]
    assert main(["export", "TF-NAS-D", "--out", "one", *options]) == 0
    assert "The weights are random" in capsys.readouterr().out
    assert "**The weights are random**" in Path("one/MODEL_CARD.md").read_text()
    zoo.load("TF-NAS-D").save(tmp_path / "architecture.json")
    by_name, by_file = (fresh_network(Path(name))[2].state_dict() for name in ("TF-NAS-D", "architecture.json"))
    assert all(torch.equal(by_name[key], by_file[key]) for key in by_name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["export", "TF-NAS-E", "--out", "x"],
            "there is no such file, and no network of `tfnas zoo list` has this name",
        ),
        (["export", "none.json", "--out", "x"], "none.json: cannot be read"),
        (["evaluate", "TF-NAS-D", "--data", "."], "is a network without weights"),
    ],
)
def test_what_is_neither_weights_nor_a_network_is_one_line(tmp_path, monkeypatch, capsys, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1
