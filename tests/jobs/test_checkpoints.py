"""Checkpoints: what is resumed, what is not, and who may run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from tfnas.jobs import artifacts, checkpoints
from tfnas.jobs.checkpoints import LOCK_NAME, CheckpointFolder, read_tensors, write_tensors
from tfnas.jobs.errors import UserError


def save_states(path, digest, count):
    with CheckpointFolder(path, digest=digest) as folder:
        for number in range(count):
            folder.save({"epoch": number, "weights": torch.full((3,), float(number)), "names": ["a", None, 1.5]})


def load_state(path, digest):
    with CheckpointFolder(path, digest=digest) as folder:
        return folder.load()


def test_last_saved_state_comes_back(tmp_path) -> None:
    assert load_state(tmp_path / "job", "d") is None
    save_states(tmp_path / "job", "d", 3)
    state = load_state(tmp_path / "job", "d")
    assert state["epoch"] == 2
    assert state["names"] == ["a", None, 1.5]
    assert torch.equal(state["weights"], torch.full((3,), 2.0))


def test_two_are_kept_and_a_damaged_newest_gives_way(tmp_path) -> None:
    save_states(tmp_path, "d", 12)
    files = sorted(tmp_path.glob("*.pt"))
    assert len(files) == 2
    files[-1].write_bytes(files[-1].read_bytes()[:100])
    assert load_state(tmp_path, "d")["epoch"] == 10
    files[0].write_bytes(b"")
    assert load_state(tmp_path, "d") is None


def test_the_newest_file_is_named(tmp_path) -> None:
    with CheckpointFolder(tmp_path / "job", digest="d") as folder:
        assert folder.newest() is None
        folder.save({"epoch": 0})
        folder.save({"epoch": 1})
        assert folder.newest() == sorted((tmp_path / "job").glob("*.pt"))[-1]


def test_a_job_goes_on_while_its_state_as_saved_is_written(tmp_path, monkeypatch) -> None:
    disk, write = threading.Event(), write_tensors
    monkeypatch.setattr(checkpoints, "write_tensors", lambda *args: (disk.wait(timeout=60), write(*args)))
    weights = torch.zeros(3)
    with CheckpointFolder(tmp_path, digest="d") as folder:
        folder.save({"weights": weights})
        assert not list(tmp_path.glob("*.pt"))
        weights += 1
        disk.set()
        assert torch.equal(folder.load()["weights"], torch.zeros(3))


@pytest.mark.parametrize("following", ["save", "load", "newest", "leaving"])
def test_what_could_not_be_written_is_raised_by_the_next_call(tmp_path, monkeypatch, following) -> None:
    with pytest.raises(OSError) as caught, CheckpointFolder(tmp_path, digest="d") as folder:
        folder.save({"epoch": 0})
        folder.load()
        fill_disk(monkeypatch)
        folder.save({"epoch": 1})
        {"save": lambda: folder.save({}), "leaving": lambda: None}.get(following, getattr(folder, following, None))()
        assert following == "leaving"
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.startswith(str(tmp_path))
    monkeypatch.undo()
    assert load_state(tmp_path, "d") == {"epoch": 0}


def test_a_checkpoint_is_not_missed_once_the_results_are_written_or_the_job_has_failed(tmp_path, monkeypatch) -> None:
    fill_disk(monkeypatch)
    with CheckpointFolder(tmp_path / "a", digest="d") as folder:
        folder.save({})
        folder.discard()
    with pytest.raises(UserError, match="diverged"), CheckpointFolder(tmp_path / "b", digest="d") as folder:
        folder.save({})
        raise UserError("diverged")
    assert not list(tmp_path.iterdir())


def fill_disk(monkeypatch) -> None:
    def fail(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(artifacts, "flush_to_disk", fail)


def test_another_digest_begins_afresh_and_replaces(tmp_path) -> None:
    save_states(tmp_path, "one", 2)
    assert load_state(tmp_path, "two") is None
    assert load_state(tmp_path, "one")["epoch"] == 1
    save_states(tmp_path, "two", 1)
    assert load_state(tmp_path, "one") is None
    assert load_state(tmp_path, "two")["epoch"] == 0


def test_digests_with_a_common_beginning_differ(tmp_path) -> None:
    save_states(tmp_path, "0123456789abcdef-x", 1)
    assert load_state(tmp_path, "0123456789abcdef-y") is None


def test_discard_leaves_nothing(tmp_path) -> None:
    with CheckpointFolder(tmp_path / "a" / "job", digest="d") as folder:
        folder.save({"epoch": 0})
        folder.discard()
    assert not (tmp_path / "a" / "job").exists()


def test_second_process_gets_one_clear_line_and_a_killed_one_leaves_no_lock(tmp_path) -> None:
    code = (
        "import sys, time\nfrom tfnas.jobs.checkpoints import CheckpointFolder\n"
        "with CheckpointFolder(sys.argv[1], digest='d'):\n    print('ready', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "job")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(UserError, match=str(other.pid)) as caught, CheckpointFolder(tmp_path / "job", digest="d"):
            pass
        assert "\n" not in str(caught.value)
    finally:
        other.kill()
        other.wait()
    assert (tmp_path / "job" / LOCK_NAME).exists()
    with CheckpointFolder(tmp_path / "job", digest="d"):
        pass


def test_same_payload_gives_the_same_bytes(tmp_path) -> None:
    payload = {"b": torch.arange(5.0), "a": {"x": 1}}
    write_tensors(payload, tmp_path / "one.pt")
    time.sleep(0.01)
    write_tensors(payload, tmp_path / "two.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_unreadable_files_are_user_errors(tmp_path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_tensors(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(os.urandom(50))
    with pytest.raises(UserError, match="damaged"):
        read_tensors(tmp_path / "bad.pt")
    torch.save(torch.ones(1), tmp_path / "tensor.pt")
    with pytest.raises(UserError, match="damaged"):
        read_tensors(tmp_path / "tensor.pt")
