"""search.py and derive.py as the engines call them: mistakes are one line, before any work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tfnas.search.result import WarmUp, search_result
from tfnas.search.supernet.supernet import Supernet

ROOT = Path(__file__).parents[2]
INPUTS = {"search": ("train", "val", "images", "table", "warm-up"), "derive": ("supernet", "table")}


def call(folder, stage, *, target="A", **changes):
    values = {name: f"{name}.in" for name in INPUTS[stage]} | changes
    options = [part for name, value in values.items() for part in (f"--{name}", value)]
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / f"{stage}.py"), "--params", "params.yaml"]
    command += ["--target", target, *options, "--out", "out", "--log", "job.log"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


@pytest.fixture
def folder(tmp_path, tiny_space_file, tiny_space, tiny_table):
    """A working directory in which every input exists."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (tmp_path / "inputs" / "spaces").mkdir(parents=True)
    shutil.copy(tiny_space_file, tmp_path / "inputs" / "spaces")
    params |= {"space": f"inputs/spaces/{tiny_space_file.name}", "resolution": 16}
    params["targets"]["A"]["constraint"] = {"relative": 0.5}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("train.in", "val.in"):
        (tmp_path / name).write_text("path,class,label\n")
    (tmp_path / "images.in").mkdir()
    tiny_table.save(tmp_path / "table.in")
    torch.manual_seed(0)
    search_result(Supernet(tiny_space, 3), 1.0, []).save(tmp_path / "supernet.in")
    WarmUp(tiny_space, 3, "sink", "none", {}).save(tmp_path / "warm-up.in", {})
    return tmp_path


def change(folder, key, value) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    *sections, last = key.split(".")
    place = params
    for section in sections:
        place = place[section]
    place[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def assert_refused(folder, result, *words) -> None:
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2 and len(lines) == 1, result.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert not (folder / "out").exists() and not (folder / "mlflow.db").exists()


@pytest.mark.parametrize("stage", ["search", "derive"])
def test_help_names_every_option_without_loading_torch(stage) -> None:
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
    assert all(f"--{name}" in result.stdout for name in (*INPUTS[stage], "target", "params", "out", "log"))


@pytest.mark.parametrize("stage", ["search", "derive"])
def test_mistakes_are_one_line_and_nothing_is_written(folder, stage) -> None:
    assert_refused(folder, call(folder, stage, target="Z"), "targets", "'Z'", "A, B")
    assert_refused(folder, call(folder, stage, table="none.json"), "none.json: is missing")
    change(folder, "targets.A.constraint", {"latency_ms": 1e6})
    assert_refused(folder, call(folder, stage), "targets.A.constraint.latency_ms", "no network", "choose")
    change(folder, "resolution", 32)
    assert_refused(folder, call(folder, stage), "table.in", "resolution: 32", "profile_latency")


def test_supernet_for_another_latency_or_damaged_is_refused(folder) -> None:
    assert_refused(folder, call(folder, "derive"), "supernet.in: was searched for 1 ms", "run search again")
    (folder / "supernet.in").write_bytes(b"PK")
    assert_refused(folder, call(folder, "derive"), "supernet.in: is damaged")


def test_misspelt_second_path_is_refused(folder) -> None:
    change(folder, "search.second_path", "randm")
    assert_refused(folder, call(folder, "search"), "search.second_path", "'randm'")
