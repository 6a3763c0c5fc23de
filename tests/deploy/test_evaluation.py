"""`tfnas evaluate` gives the training's own last numbers, and each class's by counting."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tfnas.cli import main
from tfnas.data import eval_transform
from tfnas.deploy import load_network
from tfnas.jobs.checkpoints import write_tensors

ROOT = Path(__file__).parents[2]


def evaluate(*options: object) -> int:
    return main(["evaluate", *map(str, options)])


def test_classes_by_counting(files, pictures, tmp_path, capsys) -> None:
    out = {"--per-class": tmp_path / "classes.csv", "--json": tmp_path / "all.json"}
    named = [part for pair in out.items() for part in pair]
    options = [files[1], "--architecture", files[0], "--resolution", 16]
    assert evaluate(*options, "--data", pictures, *named, "--batch-size", 4) == 0
    network, transform = load_network(*files), eval_transform(16)
    classes = sorted(path.name for path in (pictures / "val").iterdir())
    right = 0
    with (tmp_path / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, row in zip(classes, rows, strict=True):
        paths = sorted((pictures / "val" / name).iterdir())
        with torch.inference_mode():
            taken = [classes[network(transform(Image.open(path).convert("RGB"))[None]).argmax()] for path in paths]
        assert (row["name"], int(row["images"])) == (name, len(paths))
        assert float(row["top1_percent"]) == pytest.approx(100 * taken.count(name) / len(paths))
        wrong = [other for other in taken if other != name]
        assert row["most_taken_for"] in wrong or (row["most_taken_for"] == "" and not wrong)
        right += taken.count(name)
    numbers = json.loads((tmp_path / "all.json").read_text())
    assert numbers["top1_percent"] == pytest.approx(100 * right / 6)
    assert (numbers["top5_percent"], numbers["images"]) == (None, 6)
    assert f"6 images: top-1 {numbers['top1_percent']:.4f} %" in capsys.readouterr().out
    assert evaluate(*options, "--data", pictures / "val") == 0  # the folder of classes itself


def test_turned_images_are_read_as_in_the_training(files, network, pictures, tmp_path, capsys) -> None:
    """As the provenance says, else applied; `--exif` decides against both."""
    tag, answers = Image.Exif(), {}
    tag[0x0112] = 8
    for path in sorted((pictures / "val").rglob("*.png")):
        pixels = np.random.default_rng(len(str(path))).integers(0, 256, (16, 40, 3), dtype=np.uint8)
        pixels[:, :20] //= 8
        Image.fromarray(pixels).save(path, exif=tag.tobytes())
    (pictures / "val" / "dark" / "left out.txt").write_text("text")
    options = [files[1], "--architecture", files[0], "--resolution", 16, "--data", pictures, "--json", tmp_path / "n"]
    for name, prepare, option in (
        ("no provenance", None, []),
        ("apply", {"exif": "apply"}, []),
        ("ignore", {"exif": "ignore"}, []),
        ("before the key", {"source": "imagefolder"}, []),
        ("option", {"exif": "ignore"}, ["--exif", "apply"]),
    ):
        provenance = {"kind": "provenance", "format_version": 1, "params": {"prepare_data": prepare} if prepare else {}}
        files[1].with_name("provenance.json").write_text(json.dumps(provenance))
        assert evaluate(*options, *option) == 0
        answers[name] = json.loads((tmp_path / "n").read_text())["loss"]
    assert answers["no provenance"] == answers["apply"] == answers["option"]
    assert answers["ignore"] == answers["before the key"] != answers["apply"]
    assert "left out 1 .txt (not an image)" in capsys.readouterr().err


def test_mistakes_are_one_line(files, pictures, tmp_path, capsys) -> None:
    options = [files[1], "--architecture", files[0]]
    (tmp_path / "empty").mkdir()
    broken, nested = tmp_path / "broken", tmp_path / "nested"
    (broken / "dark").mkdir(parents=True)
    (broken / "dark" / "empty.png").touch()
    (nested / "dark" / "more").mkdir(parents=True)
    shutil.copytree(pictures / "val" / "dark", pictures / "val" / "fourth")
    for data, words in (
        (tmp_path / "none", "there is no such folder"),
        (tmp_path / "empty", "holds no class"),
        (broken, "empty.png: is no image (is empty)"),
        (nested, "more: is a folder"),
        (pictures, "tells 3 classes apart"),
    ):
        assert evaluate(*options, "--data", data) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert evaluate(files[1], "--data", pictures) == 2
    assert "pass --architecture NETWORK" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_numbers_of_the_training_itself(architecture, tmp_path, monkeypatch, capsys, keep) -> None:
    """Through the scripts: what metrics.json says, bit for bit, without naming anything but the weights."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["resolution"] = 16
    params["retrain"] |= {"epochs": 2, "warmup_epochs": 0, "accumulate": 2, "keep": keep}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    architecture.save("architecture.json")
    _script("prepare_data", "--out", "prepared")
    for unused in ("initial.pt", "network.pt"):
        write_tensors({}, unused)
    inputs = ["--architecture", "architecture.json", "--initial", "initial.pt", "--ranking", "network.pt"]
    inputs += ["--manifest", "prepared/manifest.csv", "--images", "prepared/images"]
    _script("retrain", "--target", "A", *inputs, "--out", "retrained")
    assert evaluate("retrained/weights.pt", "--data", "prepared", "--json", "again.json") == 0
    again, metrics = (json.loads(Path(name).read_text()) for name in ("again.json", "retrained/metrics.json"))
    for number in ("top1_percent", "top5_percent", "loss"):
        assert again[number] == metrics[number], number
    top1 = [float(line.split(",")[-1]) for line in Path("retrained/history.csv").read_text().splitlines()[1:]]
    best = top1.index(max(top1)) + 1
    assert metrics["kept_epoch"] == (2 if keep == "last" else best)
    assert metrics["top1_percent"] == top1[metrics["kept_epoch"] - 1]


def _script(stage: str, *options: str) -> None:
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / f"{stage}.py"), "--params", "params.yaml"]
    subprocess.run([*command, *options, "--log", "job.log"], check=True, timeout=900)
