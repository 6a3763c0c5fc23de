"""The search job on tiny pictures: its files, its tracking, its checkpoint; and the derive job after it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from tfnas.jobs.errors import UserError
from tfnas.latency import reachable_range_ms
from tfnas.latency.params import ConstraintParams
from tfnas.search.constraint import read_constraint
from tfnas.search.result import load_warm_up
from tfnas.space import Architecture
from tfnas.stages.derive import derive_architecture, run_derive
from tfnas.stages.job import Job
from tfnas.stages.params import TargetParams, load_params, stage_params
from tfnas.stages.search import SearchInputs, count_classes, interrupted_run, run_search, run_warm_up_job

PARAMS = Path(__file__).parents[2] / "params.yaml"
KILLS = Path(__file__).parents[2] / "benchmarks" / "search_kills.py"
CLASSES = ("black", "grey", "white")


class FakeRun:
    """Notes what is logged; fails at an epoch when told to."""

    id = "run-1"

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.metrics = fails_at, []

    def log_metrics(self, metrics, step=None) -> None:
        if step is not None and step == self.fails_at:
            raise ConnectionError
        self.metrics.append((dict(metrics), step))


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_table):
    """A working directory with images/, train.csv, val.csv and latency_table.json."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        rows = []
        for label, name in enumerate(CLASSES):
            for number in range(count):
                path = tmp_path / "images" / "train" / name / f"{split}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 60, (20, 20, 3), dtype=np.uint8) + np.uint8(90 * label)
                Image.fromarray(pixels).save(path)
                rows.append((path.relative_to(tmp_path / "images").as_posix(), name, label))
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("path", "class", "label"), *rows])
    tiny_table.save(tmp_path / "latency_table.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def params(tiny_space_file, make_params):
    shipped = load_params(PARAMS)
    target = TargetParams(constraint=ConstraintParams(relative=0.55), dropout=0.2)
    changes = {
        "space": str(tiny_space_file),
        "resolution": 16,
        "search": make_params(epochs=3, batch_size=8),
        "targets": dict.fromkeys(shipped.targets, target),
    }
    return shipped.model_copy(update=changes)


def run(params, folder, out, *, fails_at=None):
    job = Job(params, FakeRun(fails_at), folder / out)
    job.out.mkdir(exist_ok=True)
    constraint = read_constraint(params, "A", folder / "latency_table.json")
    images = [folder / name for name in ("train.csv", "val.csv", "images")]
    warmed = folder / "warm_up" / "supernet.pt"
    if not warmed.exists():
        warmed.parent.mkdir()
        warming = Job(params, FakeRun(), warmed.parent)
        run_warm_up_job(warming, SearchInputs(*images))
        warming.end()
    warm_up = load_warm_up(warmed, constraint.space, stage_params(params, "warm_up"))
    inputs = SearchInputs(*images, (folder / "latency_table.json", warmed))
    run_search(job, constraint, warm_up, inputs, target="A")
    job.end()
    return job, constraint


def test_job_writes_its_files_and_logs_every_epoch(params, folder, tiny_table) -> None:
    job, constraint = run(params, folder, "out")
    assert sorted(path.name for path in job.out.iterdir()) == ["history.csv", "metrics.json", "supernet.pt"]
    metrics = json.loads((job.out / "metrics.json").read_text())
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert metrics["table_latency_ms"] <= metrics["target_ms"] == constraint.target_ms
    assert metrics["num_classes"] == 3
    assert [step for _, step in job.run.metrics] == [1, 2, 3, None]
    architecture = derive_architecture(constraint, job.out / "supernet.pt", "A")
    assert tiny_table.latency_ms(architecture) == metrics["table_latency_ms"]
    assert not list(folder.rglob("checkpoints/**/*.pt"))


def test_interrupted_job_goes_on_and_leaves_the_same_bytes(params, folder) -> None:
    whole, _ = run(params, folder, "whole")
    with pytest.raises(ConnectionError):
        run(params, folder, "other", fails_at=2)
    inputs = [folder / name for name in ("train.csv", "val.csv", "images")]
    others = (folder / "latency_table.json", folder / "warm_up" / "supernet.pt")
    assert interrupted_run(params, SearchInputs(*inputs, others), "A") == "run-1"
    assert interrupted_run(params, SearchInputs(*inputs), "A") is None
    assert len(list((folder / "checkpoints/search/A").glob("*.pt"))) == 2
    resumed, _ = run(params, folder, "other")
    for name in ("supernet.pt", "metrics.json"):
        assert (resumed.out / name).read_bytes() == (whole.out / name).read_bytes()
    assert [step for _, step in resumed.run.metrics] == [1, 2, 3, None]
    assert not (folder / "checkpoints/search/A").exists()


@pytest.mark.parametrize("change", ["seed", "train.csv", "space"])
def test_checkpoint_of_another_job_is_not_gone_on_from(params, folder, change, caplog, tiny_space_file) -> None:
    with pytest.raises(ConnectionError):
        run(params, folder, "out", fails_at=1)
    if change == "seed":
        params = params.model_copy(update={"seed": 7})
    elif change == "train.csv":
        (folder / "train.csv").write_text("\n".join((folder / "train.csv").read_text().splitlines()[:-1]) + "\n")
    else:  # the same name and the same candidates, one of them beginning elsewhere
        text = tiny_space_file.read_text().replace("expand_ratio: 6", "expand_ratio: 5")
        other = tiny_space_file.with_name("other.yaml")
        other.write_text(text)
        params = params.model_copy(update={"space": str(other)})
    shutil.rmtree(folder / "warm_up")
    with caplog.at_level("INFO", logger="tfnas"):
        run(params, folder, "out")
    assert "goes on after" not in caplog.text


def test_derived_files_hold_no_measured_number(params, folder, monkeypatch) -> None:
    job, constraint = run(params, folder, "out")
    architecture = derive_architecture(constraint, job.out / "supernet.pt", "A")
    written = []
    for measured in (1.5, 2.5):
        result = SimpleNamespace(median_ms=measured)
        monkeypatch.setattr("tfnas.latency.measure_architecture_ms", lambda *a, r=result, **k: r, raising=False)
        run_derive(job, constraint, architecture)
        metrics = json.loads((job.out / "metrics.json").read_text())
        assert metrics["measured_latency_ms"] == measured
        assert metrics["table_latency_ms"] == constraint.table.latency_ms(architecture)
        assert metrics["depth"] == len(architecture.blocks)
        written.append((job.out / "architecture.json").read_bytes())
    assert written[0] == written[1]
    assert Architecture.load(job.out / "architecture.json") == architecture


def test_supernet_of_another_target_is_a_user_error(params, folder, tiny_space, tiny_table) -> None:
    job, constraint = run(params, folder, "out")
    low, _ = reachable_range_ms(tiny_space, tiny_table)
    other = type(constraint)(constraint.space, constraint.table, low * 1.5)
    with pytest.raises(UserError, match=r"was searched for .* ms, target A now asks for"):
        derive_architecture(other, job.out / "supernet.pt", "A")


def test_one_class_is_a_user_error() -> None:
    assert count_classes([("a", 0)], [("b", 1)], source="train.csv") == 2
    with pytest.raises(UserError, match=r"train\.csv: has 1 classes"):
        count_classes([("a", 0)], [("b", 0)], source="train.csv")


@pytest.mark.slow
def test_a_search_killed_by_the_system_ends_with_the_same_bytes_in_the_same_run(
    params, folder, tiny_space_file
) -> None:
    """By the benchmark that does so at many moments."""
    (folder / "inputs" / "spaces").mkdir(parents=True)
    shutil.copy(tiny_space_file, folder / "inputs" / "spaces")
    params = params.model_copy(update={"space": f"inputs/spaces/{tiny_space_file.name}"})
    layout = {"train.csv": "build_subset", "val.csv": "build_subset", "images": "build_subset"}
    layout |= {"latency_table.json": "profile_latency"}
    for name, stage in layout.items():
        (folder / "results" / stage).mkdir(parents=True, exist_ok=True)
        shutil.move(folder / name, folder / "results" / stage / name)
    inputs = SearchInputs(*(folder / "results" / layout[n] / n for n in ("train.csv", "val.csv", "images")))
    (folder / "results" / "warm_up").mkdir()
    run_warm_up_job(Job(params, FakeRun(), folder / "results" / "warm_up"), inputs)
    (folder / "params.yaml").write_text(
        yaml.safe_dump(params.model_dump(mode="json", by_alias=True, exclude_unset=True))
    )
    command = [sys.executable, str(KILLS), "--target", "A", "--kills", "2", "--seed", "1"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("killed after") == 2
