"""profile_latency.py as the engines call it: a real, tiny profile; mistakes are one line before any work."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.jobs import refusal
from tfnas.jobs.artifacts import digest_file
from tfnas.latency import LatencyTable, reachable_range_ms

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflow" / "scripts" / "profile_latency.py"
OPTIONS = ("--params", "params.yaml", "--out", "out", "--log", "job.log")


def call(folder):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *OPTIONS], cwd=folder, capture_output=True, text=True, timeout=900
    )


@pytest.fixture
def make_folder(tmp_path, space_file):
    def make(*, space=f"inputs/spaces/{space_file.name}", **changes):
        """A working directory whose parameters ask for a tiny profile."""
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params |= {"space": space, "resolution": 16}
        params["profile_latency"] |= {
            "minutes": 0.02,
            "warmup_runs": 1,
            "repeats": 4,
            "validation_networks": 3,
            **changes,
        }
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        (tmp_path / "inputs" / "spaces").mkdir(parents=True)
        shutil.copy(space_file, tmp_path / "inputs" / "spaces")
        return tmp_path

    return make


def test_real_profile_writes_a_table_that_fits_and_what_it_says(make_folder, space) -> None:
    folder = make_folder(validation_networks=3)
    result = call(folder)
    assert result.returncode == 0, result.stderr
    out = folder / "out"
    table = LatencyTable.load(out / "latency_table.json")
    table.check_fits(space, 16, source="test")
    assert table.batch_size == 8 and table.details["backend"] == "torch-eager"
    assert all(ms > 0 for curve in table.curves.values() for ms in curve.latencies_ms) and table.base_ms > 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["min_reachable_ms"], metrics["max_reachable_ms"]) == reachable_range_ms(space, table)
    assert metrics["operations"] == len(table.curves)
    assert metrics["knots"] == sum(len(curve.widths) for curve in table.curves.values())
    with (out / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(float(row["table_ms"]) > 0 and float(row["measured_ms"]) > 0 for row in rows)
    percent = [100 * (float(row["table_ms"]) / float(row["measured_ms"]) - 1) for row in rows]
    assert metrics["bias_percent"] == pytest.approx(sum(percent) / 3, abs=0.01)
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["outputs"]["out/latency_table.json"] == digest_file(out / "latency_table.json")
    assert set(provenance["params"]) == {"seed", "space", "resolution", "profile_latency"}
    assert "left" in (folder / "job.log").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": "tf-nass"}, ("'tf-nass'", "tf-nas")),
        ({"space": "inputs/spaces/none.yaml"}, ("inputs/spaces/none.yaml", "no such file")),
        ({"space": "none.yaml"}, ("none.yaml", "no such file", "space: inputs/spaces/none.yaml")),
        ({"minutes": 0}, ("profile_latency.minutes", "got 0")),
        ({"tolerance": 2.0}, ("profile_latency.tolerance", "got 2")),
        ({"device": "cuda:7"}, ("profile_latency.device", "'cuda:7'", "write cpu")),
        ({"repeat": 3}, ("'profile_latency.repeat'", "did you mean 'repeats'")),
    ],
)
def test_mistake_is_one_line_and_nothing_is_written(make_folder, changes, words) -> None:
    folder = make_folder(**changes)
    lines = refusal("profile_latency", folder, OPTIONS).strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines
    assert not (folder / "out").exists() and not (folder / "mlflow.db").exists()
