"""A disk that is full or read-only, and a power cut: one line says so, and no file is half written."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.engines.calls import call
from tests.helpers.projects import LISTED
from tfnas.engines.snakemake import check_writable
from tfnas.jobs import artifacts
from tfnas.jobs.artifacts import remove_unfinished, write_text
from tfnas.jobs.checkpoints import CheckpointFolder
from tfnas.jobs.errors import UserError

WRITE = {
    "text": "from tfnas.jobs.artifacts import write_text\ndef write(path): write_text(path, 'x' * 100_000)\n",
    "tensors": (
        "import torch\nfrom tfnas.jobs.checkpoints import write_tensors\n"
        "def write(path): write_tensors({'x': torch.zeros(100_000)}, path)\n"
    ),
}
LIMITED = """
import resource
from tfnas.stages.job import run_script
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
run_script(lambda: write('out/file'))
"""
CUT = """
import os, signal, sys
from pathlib import Path
from tfnas.jobs import artifacts
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
artifacts.write_text('out/file', 'new')
"""


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Mounts for one test; skips where this user may not mount."""
    mounted: list[Path] = []

    def mount(path: Path, *options: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        if subprocess.run(["mount", *options, str(path)], capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount")
        if path not in mounted:
            mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=False)


@pytest.mark.parametrize("kind", WRITE)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, kind) -> None:
    write_text(tmp_path / "out" / "file", "old")
    finished = subprocess.run(
        [sys.executable, "-c", WRITE[kind] + LIMITED], cwd=tmp_path, capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: out/file: the file would be larger") and finished.stderr.count("\n") == 1
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["old"]


def test_a_power_cut_before_the_renaming_leaves_the_old_file(tmp_path) -> None:
    write_text(tmp_path / "out" / "file", "old")
    finished = subprocess.run([sys.executable, "-c", CUT], cwd=tmp_path)
    assert finished.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert len(list((tmp_path / "out").iterdir())) == 2
    remove_unfinished(tmp_path / "out")  # the next job does
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_contents_are_on_the_disk_before_the_name(tmp_path, monkeypatch) -> None:
    done = []
    fsync, replace = os.fsync, Path.replace

    def flush(descriptor: int) -> None:
        fsync(descriptor)
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def rename(path: Path, target: Path) -> None:
        replace(path, target)
        done.append("rename")

    monkeypatch.setattr(artifacts.os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", rename)
    write_text(tmp_path / "file", "x")
    written, renamed, folder = done
    assert (written[:6], renamed, folder) == (".file.", "rename", tmp_path.name)


def test_a_checkpoint_that_was_half_written_goes_with_the_next_job(tmp_path) -> None:
    (tmp_path / ".d-000001.pt.99999.tmp").write_bytes(b"half")
    with CheckpointFolder(tmp_path, digest="d") as folder:
        assert folder.load() is None
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_the_run_goes_on_when_the_disk_has_space_again(folder, mount, monkeypatch) -> None:
    monkeypatch.setenv("TFNAS_STEPS", "3")
    results = folder / "results"
    mount(results, "-t", "tmpfs", "-o", "size=128k", "tmpfs")
    for name in LISTED:
        (results / name).mkdir()
    call(folder, "snakemake", "--cores", "1", "results/prepare_data/manifest.csv")
    with (results / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 1024)
    target = "results/rank_classes/metrics.json"
    text = call(folder, "snakemake", "--cores", "1", target, ok=False)
    assert "the disk is full; free some space" in text and "Traceback" not in text
    assert not (folder / target).exists()
    (results / "filler").unlink()
    call(folder, "snakemake", "--cores", "1", target)
    assert (folder / target).exists()


def test_read_only_results_are_refused_in_one_line(folder, mount) -> None:
    results = folder / "results"
    mount(results, "--bind", str(results))
    mount(results, "-o", "remount,ro,bind")
    text = call(folder, "snakemake", "--cores", "1", "results/prepare_data/manifest.csv", ok=False)
    assert "results: cannot be written; mount it read-write" in text and "Traceback" not in text
    mount(results, "-o", "remount,rw,bind")
    call(folder, "snakemake", "--cores", "1", "results/prepare_data/manifest.csv")


def test_folders_without_the_right_to_write_are_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "logs").mkdir()
    check_writable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "logs")  # root may write everywhere
    with pytest.raises(UserError, match=r"logs: cannot be written"):
        check_writable(tmp_path)
