"""prepare_data.py, rank_classes.py and build_subset.py as the engines call them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.jobs import refusal

ROOT = Path(__file__).parents[2]
STAGES: dict[str, dict[str, str]] = {
    "prepare_data": {},
    "rank_classes": {"manifest": "prepare_data/manifest.csv", "images": "prepare_data/images"},
    "build_subset": {
        "class-accuracy": "rank_classes/class_accuracy.csv",
        "manifest": "prepare_data/manifest.csv",
        "images": "prepare_data/images",
    },
}
WRITTEN = {
    "prepare_data": ("manifest.csv", "classes.csv", "broken.csv", "folders.csv", "images", "transfer"),
    "rank_classes": ("class_accuracy.csv", "class_accuracy.svg", "network.pt", "metrics.json"),
    "build_subset": ("train.csv", "val.csv", "classes.csv", "images"),
}


def arguments(stage: str, **changes: str) -> list[str]:
    values = STAGES[stage] | {name.replace("_", "-"): value for name, value in changes.items()}
    options = [part for name, value in values.items() for part in (f"--{name}", value)]
    return ["--params", "params.yaml", *options, "--out", stage, "--log", f"{stage}.log"]


def call(folder: Path, stage: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / f"{stage}.py"), *arguments(stage, **changes)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the shipped params.yaml."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path


def change(folder: Path, key: str, value: Any) -> None:
    """Write another value into the folder's params.yaml."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    *sections, last = key.split(".")
    place = params
    for section in sections:
        place = place[section]
    place[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def assert_refused(folder: Path, stage: str, *words: str, **changes: str) -> None:
    assert_one_line(refusal(stage, folder, arguments(stage, **changes)), *words)
    assert not (folder / stage).exists() and not (folder / f"{stage}.log").exists()


def assert_one_line(said: str, *words: str) -> None:
    lines = said.strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), said


@pytest.mark.parametrize("stage", STAGES)
def test_help_names_every_option_without_loading_torch(stage: str) -> None:
    script = ROOT / "workflow" / "scripts" / f"{stage}.py"
    code = f"""
import runpy, sys
sys.argv = ["x", "--help"]
try:
    runpy.run_path({str(script)!r}, run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    assert all(f"--{name}" in result.stdout for name in (*STAGES[stage], "params", "out", "log"))


def test_mistakes_are_one_line_and_nothing_is_written(folder: Path) -> None:
    assert_refused(folder, "rank_classes", "prepare_data/manifest.csv: is missing")
    (folder / "images").mkdir()
    (folder / "manifest.csv").write_text("split,class,path,bytes\ntrain,a,train/a/1.png,1\n")
    given = {"manifest": "manifest.csv", "images": "images"}
    assert_refused(folder, "rank_classes", "manifest.csv: has 1 classes to train on", **given)
    (folder / "manifest.csv").write_text("split,class,path,bytes\ntrain,a,train/a/1.png,1\ntrain,b,train/b/1.png,1\n")
    assert_refused(folder, "rank_classes", "params.yaml: build_subset.groups: 5", "2 classes", **given)
    (folder / "class_accuracy.csv").write_text("class,images,correct,top1\na,1,1,100.0\n")
    given = {"manifest": "manifest.csv", "class_accuracy": "class_accuracy.csv", "images": "images"}
    assert_refused(folder, "build_subset", "params.yaml: build_subset.groups: 5", "1 classes", **given)
    change(folder, "prepare_data.source", "imagefolder")
    change(folder, "prepare_data.root", "none")
    result = call(folder, "prepare_data")
    assert result.returncode == 2
    assert_one_line(result.stderr, "none: there is no such folder", "prepare_data.root")
    assert not (folder / "prepare_data").exists() and not (folder / "prepare_data.log").exists()


@pytest.mark.slow
def test_digits_are_ranked_well_above_chance_and_unevenly(folder: Path) -> None:
    for stage in STAGES:
        result = call(folder, stage)
        assert result.returncode == 0, result.stderr
    for stage, names in WRITTEN.items():
        written = sorted(path.name for path in (folder / stage).iterdir())
        assert written == sorted([*names, "provenance.json"])
        assert json.loads((folder / stage / "provenance.json").read_text())["stage"] == stage
        assert f"{stage} done" in (folder / f"{stage}.log").read_text()
    metrics = json.loads((folder / "rank_classes" / "metrics.json").read_text())
    assert metrics["top1_percent"] > 60
    assert metrics["worst_class_top1_percent"] < metrics["best_class_top1_percent"] - 2
    assert len((folder / "build_subset" / "classes.csv").read_text().splitlines()) == 1 + 5
