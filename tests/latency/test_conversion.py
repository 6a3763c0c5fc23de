"""Blocks are converted ahead, in processes that end with their parent; a visit finds the files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from tests.helpers.projects import ROOT
from tests.helpers.runtimes import int8_param
from tfnas.jobs.errors import UserError
from tfnas.latency import conversion, quantization
from tfnas.latency.backends import BackendOptions, onnx_runtime, open_backend
from tfnas.latency.backends.kept import Keeping, cache_folder
from tfnas.latency.conversion import FEWEST, convert_ahead
from tfnas.latency.measuring import block_probe
from tfnas.latency.table import OperationKey
from tfnas.latency.timing import build

KEY = OperationKey(8, 8, 8, 3, 1, 0, "relu")
PROBES = [block_probe(KEY, width, 1) for width in range(8, 8 + FEWEST)]
INT8 = BackendOptions(precision="int8")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("name", [int8_param("onnx-runtime")])
def test_a_visit_finds_what_was_converted_ahead(name, monkeypatch) -> None:
    monkeypatch.setattr(conversion, "PER_PROCESS", 2)  # several pools, one after the other
    monkeypatch.setattr(conversion, "allowed_cpus", lambda: 2)
    convert_ahead(name, INT8, PROBES)
    assert len(list(cache_folder().rglob("*.onnx"))) == FEWEST
    monkeypatch.setattr(onnx_runtime, "quantize_onnx", lambda *_: pytest.fail("quantized once more"))
    for probe in PROBES:
        open_backend(name, INT8).prepare(*build(probe, torch.device("cpu")))()


@pytest.mark.parametrize("name", [int8_param("onnx-runtime"), int8_param("openvino")])
def test_changed_code_converts_anew(name, monkeypatch, tmp_path) -> None:
    module, example = build(PROBES[0], torch.device("cpu"))
    backend = open_backend(name, INT8)
    assert isinstance(backend, Keeping)
    path = backend.keep(module, example)
    assert backend.keep(module, example) == path
    (tmp_path / "changed.py").write_text("# another quantization")
    monkeypatch.setattr(quantization, "__file__", str(tmp_path / "changed.py"))
    assert backend.keep(module, example) != path and path.is_file()


def test_the_error_of_a_process_is_that_of_the_profile() -> None:
    with pytest.raises(UserError, match="writes-nothing"):
        convert_ahead("writes-nothing", INT8, PROBES)


def test_only_slow_conversions_are_kept() -> None:
    for name, options, keeps in (("onnx-runtime", BackendOptions(), False), ("onnx-runtime", INT8, True)):
        backend = open_backend(name, options)
        assert isinstance(backend, Keeping) and backend.keeps is keeps
    assert not isinstance(open_backend("torch-eager"), Keeping)


@pytest.mark.slow
def test_processes_end_with_a_killed_parent(tmp_path) -> None:
    script = tmp_path / "convert.py"
    script.write_text(
        "from tests.latency.test_conversion import INT8, KEY, block_probe, convert_ahead\n"
        "if __name__ == '__main__':\n"
        "    convert_ahead('onnx-runtime', INT8, [block_probe(KEY, width, 1) for width in range(8, 2000)])\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    while not list(cache_folder().rglob("*.onnx")):
        assert parent.poll() is None
        time.sleep(0.2)
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert gone and not alive
