"""profile_latency.table: a table made elsewhere is copied as it is, or refused in one line before any work."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tfnas.authors.latency_tables import open_foreign_table
from tfnas.compute.devices import device_name
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.errors import UserError
from tfnas.latency import Curve, LatencyTable, reachable_range_ms
from tfnas.latency.profiler import operation_ranges
from tfnas.space import load_space
from tfnas.stages.job import Job
from tfnas.stages.params import load_params
from tfnas.stages.profile_latency import check_profile, run_profile

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "tests" / "engines" / "tiny_space.yaml"
TABLE = "inputs/tables/elsewhere.json"


def made_up_table(**changes) -> LatencyTable:
    """A table of the tiny space whose every latency is its width in microseconds."""
    space = load_space(SPACE)
    ranges = operation_ranges(space, 16).items()
    curves = {key: Curve((low, high), (low * 1e-3, high * 1e-3), (0.0, 0.0), (1, 1)) for key, (low, high) in ranges}
    fixed = tuple(stage.stage for stage in space.stages if stage.fixed is not None)
    return replace(LatencyTable(space.name, 16, 8, "Elsewhere", 0.5, curves, fixed, {"backend": "adb"}), **changes)


@pytest.fixture
def folder(tmp_path):
    for name in ("spaces", "tables"):
        (tmp_path / "inputs" / name).mkdir(parents=True)
    shutil.copy(SPACE, tmp_path / "inputs" / "spaces")
    made_up_table().save(tmp_path / TABLE)
    return tmp_path


def write_params(folder: Path, **changes) -> Path:
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {
        "space": f"inputs/spaces/{SPACE.name}",
        "resolution": 16,
    }
    params["profile_latency"] |= {"table": TABLE, "repeats": 2, "warmup_runs": 0, "validation_networks": 2}
    params["profile_latency"] |= changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder / "params.yaml"


def call(folder: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "workflow" / "scripts" / "profile_latency.py"
    command = [sys.executable, str(script), "--params", "params.yaml", "--out", "out", "--log", "job.log"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


def test_stage_copies_the_table_and_measures_nothing(folder) -> None:
    write_params(folder)
    result = call(folder)
    assert result.returncode == 0, result.stderr
    given, copied = made_up_table(), LatencyTable.load(folder / "out/latency_table.json")
    assert copied == given
    digest = digest_file(folder / TABLE)
    assert copied.details == {"backend": "adb", "copied_from": {"file": "elsewhere.json", "sha256": digest}}
    metrics = json.loads((folder / "out/metrics.json").read_text())
    low, high = reachable_range_ms(load_space(SPACE), given)
    assert (metrics["min_reachable_ms"], metrics["max_reachable_ms"], metrics["seconds"]) == (low, high, 0.0)
    assert "bias_percent" not in metrics
    with (folder / "out/validation.csv").open() as file:
        assert list(csv.DictReader(file)) == []
    assert json.loads((folder / "out/provenance.json").read_text())["inputs"][TABLE] == digest


class QuietRun:
    """A tracking run that forgets."""

    def log_metrics(self, metrics) -> None: ...


def test_table_of_this_device_measured_alike_is_checked_on_whole_networks(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    params = load_params(write_params(folder))
    names = ("backend", "precision", "channels_last", "threads", "num_classes")
    details = {name: getattr(params.profile_latency, name) for name in names}
    for changed, networks in (({}, 2), ({"threads": 2}, 0)):
        made_up_table(device=device_name("cpu"), details=details | changed).save(folder / TABLE)
        run_profile(Job(params, QuietRun(), folder), load_space(SPACE), open_foreign_table(params))
        with (folder / "validation.csv").open() as file:
            assert len(list(csv.DictReader(file))) == networks


@pytest.mark.parametrize(
    ("table", "changes", "words"),
    [
        ({"space": "other"}, {}, ("made for space: other", "params.yaml has tiny")),
        ({"resolution": 24}, {}, ("made for resolution: 24", "has 16")),
        ({}, {"batch_size": 32}, ("made for profile_latency.batch_size: 8", "has 32")),
        ({}, {"table": "nowhere.json"}, ("nowhere.json", "no such file")),
        ({}, {"device": "cuda:7"}, ("profile_latency.device", "'cuda:7'")),
        ({}, {"backend": "tflite"}, ("profile_latency.backend", "'tflite' is no backend", "onnx-runtime")),
    ],
)
def test_a_mistake_is_one_line(folder, monkeypatch, table, changes, words) -> None:
    monkeypatch.chdir(folder)
    made_up_table(**table).save(folder / TABLE)
    params = load_params(write_params(folder, **changes))
    with pytest.raises(UserError) as error:
        check_profile(params)
        open_foreign_table(params)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_a_mistake_ends_the_stage_before_it_writes(folder) -> None:
    write_params(folder, batch_size=32)
    result = call(folder)
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not (folder / "out").exists()


def test_table_that_does_not_reach_the_widths_of_the_space_is_refused(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    curves = {key: Curve(curve.widths[:1], curve.latencies_ms[:1]) for key, curve in made_up_table().curves.items()}
    made_up_table(curves=curves).save(TABLE)
    with pytest.raises(UserError, match="outside the measured"):
        open_foreign_table(load_params(write_params(folder)))


def test_pickle_in_the_authors_format_is_the_same_table(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    given = made_up_table()
    names = {
        key: f"MBInvertedResBlock_{key.resolution}_{key.in_channels}_{key.se_channels}_{key.out_channels}"
        f"_k{key.kernel}_s{key.stride}_{key.act}"
        for key in given.curves
    }
    payload = {names[key]: dict(zip(c.widths, c.latencies_ms, strict=True)) for key, c in given.curves.items()}
    Path("elsewhere.pkl").write_bytes(pickle.dumps({"base": 0.5, **payload}))
    params = load_params(write_params(folder, table="elsewhere.pkl", batch_size=32))
    table = open_foreign_table(params)
    assert (table.base_ms, table.batch_size, table.space) == (0.5, 32, given.space)
    assert {key: curve.latencies_ms for key, curve in table.curves.items()} == {
        key: curve.latencies_ms for key, curve in given.curves.items()
    }


def test_the_authors_gpu_table_fits_the_preset_of_the_paper(authors_file, monkeypatch, tmp_path) -> None:
    params = yaml.safe_load((ROOT / "presets" / "imagenet-gpu.yaml").read_text())
    params["profile_latency"]["table"] = str(authors_file("latency_gpu.pkl"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert open_foreign_table(load_params(tmp_path / "params.yaml")).batch_size == 32
    params["profile_latency"]["table"] = str(authors_file("latency_cpu.pkl"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(UserError, match="batch_size: 1, params"):
        open_foreign_table(load_params(tmp_path / "params.yaml"))
