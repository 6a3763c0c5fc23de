"""benchmarks/on_gpu.py where only five packages are installed, and what it does when a part fails or takes too long."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "on_gpu.py"
PACKAGES = ("torch", "numpy", "pydantic", "pyyaml", "tqdm")
BLOCKER = """
import sys
from importlib.machinery import PathFinder

ALLOWED = frozenset({allowed!r}) | sys.stdlib_module_names


class OnlyAllowed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        allowed = path is not None or name in ALLOWED or name.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if allowed else None


sys.meta_path[:] = [OnlyAllowed if finder is PathFinder else finder for finder in sys.meta_path]
"""
OURS = ("tfnas", "on_gpu_parts", "search_step_variants", "sitecustomize")


def with_dependencies(names: tuple[str, ...]) -> set[str]:
    """The installed packages that some packages need, these included."""
    found, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            waiting += [re.match(r"[\w.-]+", line)[0] for line in needed if "extra ==" not in line]
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Of a Python that finds the five packages and what they need, and no others."""
    folder, allowed = tmp_path_factory.mktemp("blocker"), with_dependencies(PACKAGES)
    modules = [
        module
        for module, names in packages_distributions().items()
        if any(name.lower().replace("_", "-") in allowed for name in names)
    ]
    (folder / "sitecustomize.py").write_text(BLOCKER.format(allowed=sorted([*modules, *OURS])))
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def on_gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("on_gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_fashion(folder: Path) -> None:
    """IDX files as Fashion-MNIST's, with 30 random images."""
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (30, 28, 28), np.uint8), np.arange(30, dtype=np.uint8) % 10
    for name, array in (("train-images-idx3-ubyte.gz", pixels), ("train-labels-idx1-ubyte", labels)):
        content = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)


@pytest.mark.parametrize("name", ["PIL", "mlflow", "dvc", "snakemake", "torchvision", "scipy", "pytest", "ruamel.yaml"])
def test_other_packages_are_not_found(environment, name) -> None:
    assert f"No module named '{name.split('.')[0]}'" in python(environment, "-c", f"import {name}").stderr


def test_the_library_imports_with_five_packages(environment) -> None:
    rooms = "tfnas.space.zoo, tfnas.latency.profiler, tfnas.search.loop, tfnas.train.loop, tfnas.stages.params"
    public = "; ".join(f"from tfnas.{room} import *" for room in ("space", "latency", "search", "data"))
    finished = python(environment, "-c", f"import {rooms}; {public}")
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
def test_all_parts_run_with_five_packages(environment, tmp_path) -> None:
    write_fashion(tmp_path)
    out = tmp_path / "on_gpu.json"
    arguments = ("--device", "cpu", "--tiny", "--images", str(tmp_path), "--out", str(out))
    finished = python(environment, str(SCRIPT), *arguments)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    parts = {part["part"]: part for part in json.loads(out.read_text())["parts"]}
    assert list(parts) == ["device", "tests", "latency", "steps", "search", "retrain"]
    rows = {name: {row["what"]: row for row in part["rows"]} for name, part in parts.items()}
    assert rows["tests"]["tests marked gpu"]["value"] == "not run"  # there is no pytest
    assert rows["latency"]["table measured in"]["note"].startswith("16 operations")
    for precision in ("float32", "bfloat16"):
        for step in ("weight step", "architecture step"):
            for form in ("none", "entangled", "none, one path", "entangled, one path"):
                assert rows["steps"][f"{form} {precision}: {step}"]["value"] > 0
        assert rows["retrain"][f"retraining {precision}"]["value"] > 0
    assert rows["search"]["images"]["value"] == str(tmp_path)
    target_ms = float(rows["search"]["derived network by the table"]["note"].split()[1])
    assert 0 < rows["search"]["derived network by the table"]["value"] <= target_ms
    for name, part in rows.items():
        assert all(re.search(rf"^{name} +{re.escape(what)} ", finished.stdout, re.MULTILINE) for what in part)


def test_a_part_that_fails_is_a_row_and_the_others_go_on(environment, tmp_path) -> None:
    out = tmp_path / "on_gpu.json"
    arguments = ("--device", "cpu", "--tiny", "--images", str(tmp_path), "--out", str(out))
    finished = python(environment, str(SCRIPT), *arguments, "--only", "search", "device")
    assert finished.returncode == 1
    failed, sound = json.loads(out.read_text())["parts"]
    assert f"--images {tmp_path}: has no train-images-idx3-ubyte" in failed["error"]
    assert re.search(r"^search +FAILED .*has no train-images", finished.stdout, re.MULTILINE)
    assert sound["error"] is None and sound["rows"]


def test_a_part_that_takes_too_long_is_stopped_with_what_it_started(on_gpu, tmp_path) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time, pathlib\n"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(p.pid)); time.sleep(60)"
    )
    with (tmp_path / "log").open("w") as stream:
        error = on_gpu.wait([sys.executable, "-I", "-S", "-c", code], stream, 5.0)
    assert error == "stopped at its limit of 5 s"
    deadline, pid = time.monotonic() + 20, int(child.read_text())
    while is_running(pid) and time.monotonic() < deadline:  # a busy machine buries the dead late
        time.sleep(0.1)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Whether a process computes or sleeps; one that is dead but not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_limits_together_are_eight_minutes(on_gpu) -> None:
    assert on_gpu.LONGEST_SECONDS < 480
    assert all(0 < seconds < on_gpu.LONGEST_SECONDS for seconds, _ in on_gpu.PARTS.values())
