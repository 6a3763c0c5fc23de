"""`tfnas compare`, `tfnas latency --plot` and the backends of `tfnas profile`, on tiny measurements."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tfnas.cli import main
from tfnas.compute.devices import device_name
from tfnas.latency import Curve, LatencyTable
from tfnas.latency.profiler import operation_ranges
from tfnas.space import load_space

TINY_SPACE = Path(__file__).parents[1] / "engines" / "tiny_space.yaml"


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    """tf-nas at 32, a microsecond a channel, of this device."""
    ranges = operation_ranges(load_space("tf-nas"), 32).items()
    curves = {key: Curve((low, high), (low * 1e-3, high * 1e-3)) for key, (low, high) in ranges}
    details = {"backend": "torch-eager", "precision": "float32", "channels_last": False, "threads": 1}
    return LatencyTable("tf-nas", 32, 1, device_name("cpu"), 1.0, curves, details=details)


@pytest.fixture
def few_baselines(monkeypatch):
    """Two networks of the paper and one of torchvision."""
    monkeypatch.setattr("tfnas.space.zoo.names", lambda: ["TF-NAS-D", "TF-NAS-D-wose"])
    monkeypatch.setattr("tfnas.latency.baselines.TORCHVISION", ("shufflenet_v2_x0_5",))


def test_compare_prints_writes_and_draws(table, few_baselines, tmp_path, capsys) -> None:
    table.save(tmp_path / "t.json")
    options = ["--table", tmp_path / "t.json", "--repeats", 1, "--warmup-runs", 0, "--out", tmp_path / "out"]
    assert main(["compare", *map(str, options)]) == 0
    text = capsys.readouterr().out
    assert "torch-eager, float32, 1 thread, batch 1, 32x32" in text and "not measured here" in text
    with (tmp_path / "out/comparison.csv").open() as file:
        rows = {row["network"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"TF-NAS-D", "TF-NAS-D-wose", "shufflenet_v2_x0_5"}
    ms, by_table = (float(rows["TF-NAS-D"][name]) for name in ("latency_ms", "table_ms"))
    assert f"{100 * (by_table / ms - 1):+.1f} %" in text
    known = [row for row in rows.values() if row["table_ms"]]
    hits = sum(abs(float(row["table_ms"]) / float(row["latency_ms"]) - 1) <= 0.1 for row in known)
    assert f"{100 * hits / len(known):.0f} % within 10 %" in text
    svg = (tmp_path / "out/comparison.svg").read_text()
    assert all(name in svg for name in rows) and "published top-1" in svg
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_compare_shows_no_error_of_another_devices_table(table, few_baselines, tmp_path, capsys) -> None:
    replace(table, device="Another").save(tmp_path / "t.json")
    options = ["--table", tmp_path / "t.json", "--repeats", 1, "--warmup-runs", 0, "--out", tmp_path / "out"]
    assert main(["compare", *map(str, options)]) == 0
    text = capsys.readouterr().out
    assert "within 10 %" not in text
    assert "another device (Another)" in text and " %  " not in text.split("TF-NAS-D ")[1].split("M")[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threads", "4"], ("--threads 4", "was measured with 1")),
        (["--resolution", "64"], ("--resolution 64", "was measured with 32")),
        (["--backend", "torch"], ("--backend 'torch'", "was measured with torch-eager")),
        (["--repeats", "0"], ("--repeats 0", "1 or more")),
        (["--device", "tpu"], ("--device tpu", "write cpu")),
        (["--device", "cpux"], ("--device cpux", "write cpu")),
    ],
)
def test_compare_refuses_in_one_line(table, tmp_path, capsys, options, words) -> None:
    table.save(tmp_path / "t.json")
    command = ["compare", "--table", str(tmp_path / "t.json"), "--out", str(tmp_path / "out"), *options]
    assert main(command) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and all(word.replace("'", "") in line.replace("'", "") for word in words), line


def test_plot_has_a_panel_for_each_place_and_needs_no_network(table, tmp_path, capsys) -> None:
    table.save(tmp_path / "t.json")
    assert main(["latency", "--table", str(tmp_path / "t.json"), "--plot", str(tmp_path / "c.svg")]) == 0
    svg = (tmp_path / "c.svg").read_text()
    places = {(key.resolution, key.in_channels, key.out_channels, key.stride) for key in table.curves}
    for resolution, in_channels, out_channels, stride in places:
        assert f"{resolution} x {resolution}, {in_channels} to {out_channels}, stride {stride}" in svg
    assert main(["latency", "--table", str(tmp_path / "t.json")]) == 2
    assert main(["latency", "--table", str(tmp_path / "t.json"), "--plot", str(tmp_path / "c.pdf")]) == 2
    assert "change the suffix" in capsys.readouterr().err


def test_profile_measures_with_the_backend_it_is_told(tmp_path) -> None:
    small = [
        "--minutes",
        "0.01",
        "--on-busy",
        "warn",
        "--repeats",
        "1",
        "--warmup-runs",
        "0",
        "--validation-networks",
        "0",
    ]
    space = ["--space", str(TINY_SPACE), "--num-classes", "3"]
    assert main(["profile", *space, *small, "--backend", "onnx-runtime", "--out", str(tmp_path / "t.json")]) == 0
    assert LatencyTable.load(tmp_path / "t.json").details["backend"] == "onnx-runtime"


def test_compare_help_is_quick() -> None:
    code = "import sys; from tfnas.cli import main\n"
    code += "try: main(['compare', '--help'])\nfinally: assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert result.returncode == 0 and "--table" in result.stdout, result.stderr
