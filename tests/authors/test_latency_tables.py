"""The authors' latency tables as pickles; and `profile_latency.table`: an external table is copied, or refused."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.helpers.jobs import make_job, run_job
from tfnas.authors import read_latency_table
from tfnas.authors.latency_tables import open_external_table
from tfnas.cli.init.presets import render_preset
from tfnas.compute.devices import device_name
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.errors import UserError
from tfnas.latency import Curve, LatencyTable, OperationKey, reachable_range_ms
from tfnas.latency.profiler import operation_ranges
from tfnas.space import load_space, zoo
from tfnas.stages import profile_latency
from tfnas.stages.params import Params, load_params

GPU_MS = {
    "TF-NAS-A": 17.999,
    "TF-NAS-B": 15.000,
    "TF-NAS-C": 12.039,
    "TF-NAS-D": 9.999,
    "TF-NAS-A-wose": 17.998,
    "TF-NAS-B-wose": 15.000,
    "TF-NAS-C-wose": 12.041,
    "TF-NAS-D-wose": 10.000,
    "TF-NAS-CPU-A": 14.026,
    "TF-NAS-CPU-B": 10.262,
}
CPU_MS = {"TF-NAS-CPU-A": 65.24, "TF-NAS-CPU-B": 46.84}  # Table 9 has 59.99 and 40.18
KEY = "MBInvertedResBlock_112_16_0_24_k3_s2_relu"
GOOD = OrderedDict([("base", 1.5), (KEY, OrderedDict([(32, 0.25), (40, 0.5)]))])


@pytest.fixture
def write(tmp_path):
    def write_bytes(content):
        path = tmp_path / "table.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
        return path

    return write_bytes


@pytest.fixture(scope="module")
def gpu_table(authors_file):
    return read_latency_table(authors_file("latency_gpu.pkl"))


@pytest.fixture(scope="module")
def cpu_table(authors_file):
    return read_latency_table(authors_file("latency_cpu.pkl"))


@pytest.mark.parametrize("name", sorted(GPU_MS))
def test_latencies_of_the_gpu_table(gpu_table, name) -> None:
    assert gpu_table.latency_ms(zoo.load(name)) == pytest.approx(GPU_MS[name], abs=0.002)


@pytest.mark.parametrize("name", sorted(CPU_MS))
def test_latencies_of_the_cpu_table(cpu_table, name) -> None:
    assert cpu_table.latency_ms(zoo.load(name)) == pytest.approx(CPU_MS[name], abs=0.005)


def test_relu6_is_not_in_their_tables(gpu_table) -> None:
    with pytest.raises(UserError, match="no operation k5 s2 16->24 relu6 at 112x112") as caught:
        gpu_table.latency_ms(zoo.load("TF-NAS-MBV2-A"))
    assert "latency_gpu.pkl" in str(caught.value)


@pytest.mark.parametrize("name", ["latency_gpu.pkl", "latency_cpu.pkl"])
def test_every_number_of_the_file_is_kept(authors_file, name) -> None:
    path = authors_file(name)
    with path.open("rb") as file:
        raw = pickle.load(file)  # the shared copy is plain data
    table = read_latency_table(path)
    assert table.base_ms == raw.pop("base")
    assert len(table.curves) == len(raw)
    for key, latencies in raw.items():
        _, size, in_channels, se_channels, out_channels, kernel, stride, act = key.split("_")
        shape = [int(text.lstrip("ks")) for text in (size, in_channels, out_channels, kernel, stride, se_channels)]
        curve = table.curve(OperationKey(*shape, act))
        assert dict(zip(curve.widths, curve.latencies_ms, strict=True)) == latencies


@pytest.mark.parametrize("space", ["tf-nas", "tf-nas-wose"])
def test_their_tables_fit_the_space(gpu_table, cpu_table, space) -> None:
    for table in (gpu_table, cpu_table):
        table.check_fits(load_space(space), 224, source="table")


def test_batch_size_and_device_of_their_tables(gpu_table, cpu_table) -> None:
    assert (gpu_table.batch_size, cpu_table.batch_size) == (32, 1)
    assert (gpu_table.device, cpu_table.device) == ("authors' latency_gpu.pkl", "authors' latency_cpu.pkl")


def test_round_trip_through_our_format(gpu_table, tmp_path) -> None:
    gpu_table.save(tmp_path / "latency_table.json")
    assert LatencyTable.load(tmp_path / "latency_table.json") == gpu_table


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_plain_tables_of_every_protocol(write, protocol, kind) -> None:
    content = kind([("base", 1.5), (KEY, kind([(40, 1), (32, 0.25)]))])
    table = read_latency_table(write(pickle.dumps(content, protocol)), batch_size=8, device="mine", resolution=112)
    assert (table.base_ms, table.batch_size, table.device, table.resolution) == (1.5, 8, "mine", 112)
    assert table.operation_ms(OperationKey(112, 16, 24, 3, 2, 0, "relu"), 36) == pytest.approx(0.625)


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Evaluates:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused_by_name_and_not_run(write, tmp_path, protocol) -> None:
    marker = tmp_path / "ran"
    for content in (Runs(marker), {**GOOD, "extra": Runs(marker)}, {"base": Runs(marker)}):
        with pytest.raises(UserError, match=r"refers to \w+\.system; .* refused") as caught:
            read_latency_table(write(pickle.dumps(content, protocol)))
        assert "\n" not in str(caught.value)
        assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({**GOOD, "x": Evaluates()}, "eval"),
        ({**GOOD, "x": {1, 2}}, "set"),
        ({**GOOD, "x": complex(1, 2)}, "complex"),
        (b"cbuiltins\nexec\n(S'1'\ntR.", "builtins.exec"),
        (b"ccollections\nUserDict\n.", "collections.UserDict"),
        (b"cposix\nsystem\n(S'true'\ntR.", "posix.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "builtins.getattr"),
    ],
)
def test_anything_but_dicts_numbers_and_strings_is_refused_by_name(write, content, name) -> None:
    if not isinstance(content, bytes):
        content = pickle.dumps(content, 2)  # before protocol 4 a set is a call of `set`
    with pytest.raises(UserError, match=rf"refers to [\w.]*{name}; .* refused"):
        read_latency_table(write(content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a complete pickle"),
        (pickle.dumps(GOOD)[:-20], "is not a complete pickle"),
        (b"hello\n", "is not a complete pickle"),
        ([1, 2], "holds a list, expected a dict"),
        ({KEY: {32: 0.25}}, "has no key 'base'"),
        ({"base": 1.5}, "holds no operation"),
        ({"base": "1.5", KEY: {32: 0.25}}, "base: latency is '1.5', expected milliseconds"),
        ({"base": True, KEY: {32: 0.25}}, "base: latency is True"),
        ({"base": 1.5, KEY: {32: float("nan")}}, "width 32: latency is nan"),
        ({"base": 1.5, KEY: {32: float("inf")}}, "width 32: latency is inf"),
        ({"base": 1.5, KEY: {32: None}}, "width 32: latency is None"),
        ({"base": 1.5, KEY: {"32": 0.25}}, "width '32' is not a positive whole number"),
        ({"base": 1.5, KEY: {0: 0.25}}, "width 0 is not a positive whole number"),
        ({"base": 1.5, KEY: {}}, "expected a dict from width to milliseconds"),
        ({"base": 1.5, KEY: 0.25}, "expected a dict from width to milliseconds"),
        ({"base": 1.5, "Conv_112": {32: 0.25}}, "key 'Conv_112' is no operation; expected one like"),
        ({"base": 1.5, 7: {32: 0.25}}, "key 7 is no operation"),
        ({"base": 1.5, KEY + "6x": {32: 0.25}}, "is no operation"),
    ],
)
def test_a_bad_table_is_one_line(write, content, words) -> None:
    path = write(content)
    with pytest.raises(UserError) as caught:
        read_latency_table(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_every_truncation_is_one_line(write) -> None:
    whole = pickle.dumps(GOOD)
    for length in range(len(whole)):
        with pytest.raises(UserError) as caught:
            read_latency_table(write(whole[:length]))
        assert "\n" not in str(caught.value)


def test_a_missing_file_or_a_folder_is_one_line(tmp_path) -> None:
    for path in (tmp_path / "missing.pkl", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_latency_table(path)


def test_a_table_without_an_operation_of_the_space_names_it(write) -> None:
    table = read_latency_table(write(GOOD))
    with pytest.raises(UserError, match="no operation k3 s2 16->24 se32 relu at 112x112"):
        table.latency_ms(zoo.load("TF-NAS-A"))


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


def opened(params: Params) -> LatencyTable:
    """The table that the parameters name."""
    table = open_external_table(params.profile_latency, load_space(params.space), params.resolution)
    assert table is not None
    return table


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


def test_table_of_this_device_measured_alike_is_checked_on_whole_networks(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    params = load_params(write_params(folder))
    names = ("backend", "precision", "channels_last", "threads", "num_classes")
    details = {name: getattr(params.profile_latency, name) for name in names}
    for changed, networks in (({}, 2), ({"threads": 2}, 0)):
        made_up_table(device=device_name("cpu"), details=details | changed).save(folder / TABLE)
        run_job(make_job("profile_latency", folder, params, {}))
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
        profile_latency.check(make_job("profile_latency", folder, params, {}))
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
        opened(load_params(write_params(folder)))


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
    table = opened(params)
    assert (table.base_ms, table.batch_size, table.space) == (0.5, 32, given.space)
    assert {key: curve.latencies_ms for key, curve in table.curves.items()} == {
        key: curve.latencies_ms for key, curve in given.curves.items()
    }


def test_the_authors_gpu_table_fits_the_preset_of_the_paper(authors_file, monkeypatch, tmp_path) -> None:
    params = yaml.safe_load(render_preset("imagenet-gpu"))
    params["profile_latency"]["table"] = str(authors_file("latency_gpu.pkl"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert opened(load_params(tmp_path / "params.yaml")).batch_size == 32
    params["profile_latency"]["table"] = str(authors_file("latency_cpu.pkl"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(UserError, match="batch_size: 1, params"):
        opened(load_params(tmp_path / "params.yaml"))
