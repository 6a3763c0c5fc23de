"""A latency backend for tfnas: ONNX Runtime on an Android phone, over adb.

It needs `adb` on the PATH and ONNX Runtime's own onnxruntime_perf_test, built for Android, at TOOL on the phone.
Environment variables: ANDROID_SERIAL chooses the phone (adb reads it itself), TFNAS_ADB_TASKSET the cores (a mask
in hexadecimal for `taskset`, such as f0 for the large ones).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.jobs.errors import UserError
from tfnas.latency.backends import BackendOptions
from tfnas.latency.backends.onnx_runtime import export_static_onnx

if TYPE_CHECKING:
    from torch import Tensor, nn

TOOL = "/data/local/tmp/onnxruntime_perf_test"
MODEL = "/data/local/tmp/tfnas-model.onnx"
RESULT = "/data/local/tmp/tfnas-result.csv"


class OnPhone:
    """A model on the phone: what `prepare` returns."""

    def __init__(self, backend: AdbBackend) -> None:
        self.backend = backend

    def __call__(self) -> object:
        return self.backend.time_runs(self, 1)


class AdbBackend:
    """Pushes each module as an ONNX model and runs it with ONNX Runtime's CPU provider."""

    name = "adb"

    def __init__(self, options: BackendOptions) -> None:
        if options.precision != "float32" or options.channels_last:
            raise UserError("profile_latency.backend: adb runs in float32 and its own memory layout; leave both as are")
        if shutil.which("adb") is None:
            raise UserError("profile_latency.backend: adb is not on the PATH; install Android's platform-tools")
        self.threads = options.threads
        self.device = " ".join(self._property(name) for name in ("ro.product.manufacturer", "ro.product.model"))
        self.version = _adb("shell", "sha256sum", TOOL).split()[0][:12]  # the tool does not print a version
        self._loaded: OnPhone | None = None

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(export_static_onnx(module, example))
            _adb("push", str(path), MODEL)
        self._loaded = OnPhone(self)
        return self._loaded

    def time_runs(self, run: Callable[[], object], repeats: int) -> Sequence[float]:
        """Milliseconds of each run, by the tool's own clock; its input is random."""
        assert run is self._loaded, "one model is on the phone at a time"
        mask = os.environ.get("TFNAS_ADB_TASKSET")
        cores = ["taskset", mask] if mask else []
        tool = [TOOL, "-e", "cpu", "-I", "-m", "times", "-r", str(repeats), "-x", str(self.threads), "-o", "99"]
        _adb("shell", "rm", "-f", RESULT)
        _adb("shell", *cores, *tool, MODEL, RESULT)
        return read_times_ms(_adb("shell", "cat", RESULT), repeats)

    def _property(self, name: str) -> str:
        return _adb("shell", "getprop", name).strip()


def read_times_ms(text: str, repeats: int) -> list[float]:
    """The tool's result file: a line a run, with the seconds in the second column.

    Raises:
        UserError: not as many runs as were asked for.
    """
    times = [1000.0 * float(line.split(",")[1]) for line in text.splitlines() if line.count(",") >= 4]
    if len(times) != repeats:
        raise UserError(f"adb: {TOOL} reported {len(times)} of {repeats} runs; run it by hand to see why")
    return times


def _adb(*arguments: str) -> str:
    """What adb prints.

    Raises:
        UserError: adb fails: no phone, no permission, no such file.
    """
    done = subprocess.run(["adb", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())[:200]
        raise UserError(f"adb {' '.join(arguments[:3])}: {reason}; is the phone connected (`adb devices`)?")
    return done.stdout
