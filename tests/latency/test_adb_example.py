"""The worked example of an own backend, against an `adb` that plays a phone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.examples import load_backend
from tfnas.jobs.errors import UserError
from tfnas.latency.backends import BackendOptions, OwnClock

FAKE_ADB = f"""#!{sys.executable}
import shutil, sys
from pathlib import Path
phone = Path(__file__).parent / "phone"
phone.mkdir(exist_ok=True)
def local(path): return phone / path.strip("/").replace("/", "-")
command, *rest = sys.argv[1:]
with (phone / "calls").open("a") as file: print(*sys.argv[1:], file=file)
if (phone / "unplugged").exists(): sys.exit("error: no devices/emulators found")
if command == "push": shutil.copy(rest[0], local(rest[1]))
elif rest[0] == "getprop": print({{"ro.product.manufacturer": "Acme", "ro.product.model": "One"}}[rest[1]])
elif rest[0] == "sha256sum": print("0123456789abcdef  " + rest[1])
elif rest[0] == "rm": local(rest[2]).unlink(missing_ok=True)
elif rest[0] == "cat": print(local(rest[1]).read_text())
else:  # the perf test: as long as the model is large
    model, result = local(rest[-2]), local(rest[-1])
    runs = int(rest[rest.index("-r") + 1])
    seconds = model.stat().st_size * 1e-9
    result.write_text("".join(f"model,{{seconds}},0,0,{{run}}\\n" for run in range(runs)))
"""


@pytest.fixture
def phone(tmp_path, monkeypatch) -> Path:
    adb = tmp_path / "adb"
    adb.write_text(FAKE_ADB)
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "phone"


@pytest.fixture
def open_example():
    return load_backend("adb")


def test_runs_are_timed_on_the_phone(phone, open_example, monkeypatch) -> None:
    monkeypatch.setenv("TFNAS_ADB_TASKSET", "f0")
    backend = open_example(BackendOptions(threads=4))
    assert isinstance(backend, OwnClock) and (backend.device, backend.version) == ("Acme One", "0123456789ab")
    small, large = (backend.prepare(nn.Linear(n, n).eval(), torch.randn(1, n)) for n in (4, 400))
    assert backend.time_runs(large, 3) == pytest.approx([400 * 400 * 4e-6] * 3, rel=0.05)
    with pytest.raises(AssertionError):
        backend.time_runs(small, 1)
    calls = (phone / "calls").read_text()
    assert "taskset f0" in calls and "-r 3" in calls and "-x 4" in calls


def test_an_unplugged_phone_is_one_line(phone, open_example) -> None:
    backend = open_example(BackendOptions())
    (phone / "unplugged").touch()
    with pytest.raises(UserError, match="no devices/emulators found"):
        backend.prepare(nn.ReLU().eval(), torch.randn(1, 2))


def test_options_that_it_cannot_take_are_refused(phone, open_example, monkeypatch) -> None:
    with pytest.raises(UserError, match="float32"):
        open_example(BackendOptions(precision="bfloat16"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="not on the PATH"):
        open_example(BackendOptions())
