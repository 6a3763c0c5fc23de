"""retrain.py and transfer.py as the engines call them: their mistakes are one line, before any work."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.jobs import refusal

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
INPUTS = {
    "retrain": ("architecture", "initial", "ranking", "manifest", "images"),
    "transfer": ("architecture", "weights", "data"),
}


def options(stage: str, *, target: str = "A", dataset: str = "shifted-digits", **changes: str) -> list[str]:
    values = {name: f"{name}.in" for name in INPUTS[stage]} | changes
    names = ["--target", target] + (["--dataset", dataset] if stage == "transfer" else [])
    inputs = [part for name, value in values.items() for part in (f"--{name}", value)]
    return ["--params", "params.yaml", *names, *inputs, "--out", "out", "--log", "job.log"]


def call(folder: Path, stage: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / f"{stage}.py"), *options(stage, **changes)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


@pytest.fixture
def folder(tmp_path: Path, architecture) -> Path:
    """A working directory in which every input exists."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    architecture.save(tmp_path / "architecture.in")
    for name in ("manifest.in", "weights.in", "initial.in", "ranking.in"):
        (tmp_path / name).write_text("split,class,path,bytes\n")
    for name in ("images.in", "data.in"):
        (tmp_path / name).mkdir()
    return tmp_path


def change(folder: Path, section: str, value: object, key: str | None = None) -> None:
    """Write another value into the folder's params.yaml."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    if key is None:
        params[section] = value
    else:
        params[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def assert_refused(folder: Path, stage: str, *words: str, **changes: str) -> None:
    assert_one_line(refusal(stage, folder, options(stage, **changes)), *words)


def assert_one_line(said: str, *words: str) -> None:
    lines = said.strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), said


@pytest.mark.parametrize("stage", ["retrain", "transfer"])
def test_mistakes_are_one_line_and_nothing_is_written(folder: Path, stage: str) -> None:
    assert_refused(folder, stage, "targets", "'Z'", "A, B", target="Z")
    assert_refused(folder, stage, "none.json: is missing", architecture="none.json")
    (folder / "no.json").write_text("{}")
    result = call(folder, stage, architecture="no.json")
    assert result.returncode == 2
    assert_one_line(result.stderr, "no.json", "'architecture'")
    change(folder, stage, 1, "batch_size")
    assert_refused(folder, stage, f"params.yaml: {stage}.batch_size", "got 1")
    change(folder, stage, 8, "batch_size")
    change(folder, stage, 99, "warmup_epochs")
    assert_refused(folder, stage, f"params.yaml: {stage}", "warmup_epochs must not be more than epochs")
    assert not (folder / "out").exists() and not (folder / "job.log").exists()


def test_a_data_set_that_params_do_not_list(folder: Path) -> None:
    words = ("transfer.datasets", "'cifar10'", "shifted-digits")
    assert_refused(folder, "transfer", *words, dataset="cifar10")


def test_teacher_and_start_are_checked_before_any_work(folder: Path) -> None:
    off = {"network": "none", "model": None, "temperature": 4.0, "weight": 0.5}
    for wrong, words in (
        ({"model": "timm:resnet10t"}, ("model 'timm:resnet10t'", "write model: null")),
        ({"network": "ranking", "weight": 0}, ("weight 0", "network: none")),
        ({"network": "inputs/teachers/a.pth", "model": "resnet18"}, ("neither torchvision:NAME nor timm:NAME",)),
        ({"network": "a.pth"}, ("retrain.teacher.network: 'a.pth' lies outside inputs/teachers/",)),
        ({"network": "inputs/teachers/a.pth"}, ("inputs/teachers/a.pth: is missing (retrain.teacher.network)",)),
    ):
        change(folder, "retrain", off | wrong, "teacher")
        assert_refused(folder, "retrain", *words)
    change(folder, "retrain", off, "teacher")
    change(folder, "retrain", "inputs/weights/{target}.pt", "initial")
    assert_refused(folder, "retrain", "inputs/weights/A.pt: is missing (retrain.initial)")
    assert not (folder / "out").exists() and not (folder / "job.log").exists()


@pytest.mark.slow
@pytest.mark.skipif(not (SCRIPTS / "prepare_data.py").exists(), reason="needs workflow/scripts/prepare_data.py")
def test_from_pictures_to_a_transferred_network(folder: Path) -> None:
    change(folder, "resolution", 16)
    change(folder, "transfer", 16, "resolution")
    for stage in INPUTS:
        change(folder, stage, 1, "epochs")
        change(folder, stage, 0, "warmup_epochs")
    for key, value in (("epochs", 2), ("keep", "best"), ("sampler", "balanced")):
        change(folder, "transfer", value, key)
    prepare = [sys.executable, str(SCRIPTS / "prepare_data.py"), "--params", "params.yaml"]
    subprocess.run([*prepare, "--out", "prepared", "--log", "prepare.log"], cwd=folder, check=True, timeout=900)
    retrained = call(folder, "retrain", manifest="prepared/manifest.csv", images="prepared/images")
    assert retrained.returncode == 0, retrained.stderr
    (folder / "out").rename(folder / "retrained")
    transferred = call(folder, "transfer", weights="retrained/weights.pt", data="prepared/transfer")
    assert transferred.returncode == 0, transferred.stderr
    for out, stage, more in (("retrained", "retrain", {"seeds.csv"}), ("out", "transfer", set())):
        written = {path.name for path in (folder / out).iterdir()}
        assert written == {"history.csv", "metrics.json", "provenance.json", "weights.pt"} | more
        assert json.loads((folder / out / "provenance.json").read_text())["stage"] == stage
        metrics = json.loads((folder / out / "metrics.json").read_text())
        with (folder / out / "history.csv").open(newline="") as file:
            top1 = [float(row["val_top1"]) for row in csv.DictReader(file)]
        assert metrics["epochs"] == len(top1) == (1 if stage == "retrain" else 2)
        assert metrics["kept_epoch"] == 1 + top1.index(max(top1)) and metrics["top1_percent"] == max(top1)
    assert not list((folder / "checkpoints").rglob("*.pt"))
