"""Checkpoints of a running job: written in the background, resumed only while nothing the job depends on has changed.

`dvc exp run --queue` and `--temp` run in a folder of their own, which DVC removes at the end. What must outlive it
(checkpoints, tracking) goes into the project's folder.
"""

from __future__ import annotations

import copy
import io
import logging
import os
import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

from tfnas.jobs.artifacts import atomic_path, remove_unfinished
from tfnas.jobs.errors import UserError
from tfnas.jobs.locks import release_lock, take_lock

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINTS = Path("checkpoints")  # in the working directory, next to results/ and logs/
KEPT = 2  # the newest, and one more in case the newest is damaged
LOCK_NAME = "lock"

logger = logging.getLogger("tfnas.checkpoints")


class Checkpoints(Protocol):
    """Where a search or a training saves its state: a `CheckpointFolder`, or memory in a test."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, state: dict[str, Any]) -> None: ...


class CheckpointFolder:
    """The checkpoints of one job, locked while it runs.

        with CheckpointFolder(path, digest=digest) as checkpoints:
            state = checkpoints.load()      # None: begin at the beginning
            checkpoints.save(state)         # after each epoch
            checkpoints.discard()           # when the results are written

    A state is copied when it is saved and written in the background, so the job's next steps need not wait for the
    disk. A kill in between leaves the previous state. An error in writing (a full disk, say) is raised by the next
    call or on leaving.

    Args:
        path: the folder. For an experiment that DVC runs elsewhere, one next to the project's own, with the digest in
            its path, since experiments run side by side.
        digest: of everything the job's result depends on (parameters, inputs). Checkpoints with another digest are
            not resumed, and are removed when the first new one is saved.

    Raises:
        UserError: on entering, when another process runs the same job.
    """

    def __init__(self, path: str | Path, *, digest: str) -> None:
        self.path = _lasting(Path(path), digest)
        self._digest = digest
        self._prefix = f"{digest[:16]}-"
        self._lock: IO[str] | None = None
        self._background = Background()

    def __enter__(self) -> CheckpointFolder:
        self._lock = take_lock(self.path / LOCK_NAME, job=str(self.path))
        remove_unfinished(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        try:
            self._background.wait()
        except OSError as failure:
            if error is None:
                raise
            logger.warning("%s: not written (%s)", self.path, failure.strerror)
        finally:
            release_lock(self._lock, self.path / LOCK_NAME)
            self._lock = None
            self._remove_empty()

    def load(self) -> dict[str, Any] | None:
        """The newest intact state with this digest, on the CPU; None when there is none."""
        self._background.wait()
        for path in reversed(self._files()):
            state = _read(path)
            if state is not None and state["digest"] == self._digest:
                return dict(state["state"])
            logger.warning("%s: is damaged; skipped", path)
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state of tensors and plain values, atomically and in the background; the last two are kept."""
        assert self._lock is not None, "save needs the folder's lock: use `with`"
        copied = _copied({"digest": self._digest, "state": state})
        self._background.begin(lambda: self._write(copied))

    def newest(self) -> Path | None:
        """The file saved last; None when there is none."""
        self._background.wait()
        files = self._files()
        return files[-1] if files else None

    def discard(self) -> None:
        """Remove all checkpoints, and the folder where nobody holds it: the job's results are written."""
        try:
            self._background.wait()
        except OSError as failure:
            logger.warning("%s: not written (%s), nor needed any more", failure.filename, failure.strerror)
        for path in self.path.glob("*.pt"):
            path.unlink()
        self._remove_empty()

    def _write(self, payload: dict[str, Any]) -> None:
        files = self._files()
        number = 1 + (int(files[-1].stem.removeprefix(self._prefix)) if files else 0)
        path = self.path / f"{self._prefix}{number:06d}.pt"
        write_tensors(payload, path)
        kept = {path, *files[len(files) + 1 - KEPT :]}
        for path in self.path.glob("*.pt"):
            if path not in kept:
                path.unlink()

    def _remove_empty(self) -> None:
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.path.glob(f"{self._prefix}*.pt"))


def _lasting(path: Path, digest: str) -> Path:
    project = project_folder()
    if project == Path() or path.is_absolute():
        return path
    first, *rest = path.parts
    return project.joinpath(first, "experiments", *rest, digest[:16])


def _copied(value: Any) -> Any:
    """A copy on the CPU, whose tensors the job's next steps do not change."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # of its own kind
        copied.update({key: _copied(own) for key, own in value.items()})
        return copied
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(own) for own in value)
    return value


class Background:
    """One thread for writing, which mostly waits for the disk; an error in it is raised once, by the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tfnas-background")
        self._pending: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Wait for the previous task, then start this one."""
        self.wait()
        self._pending = self._pool.submit(work)

    def wait(self) -> None:
        """Wait until the last task is done."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict, on the CPU and in the usual memory order."""
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def write_tensors(payload: dict[str, Any], path: str | Path) -> None:
    """`torch.save`, atomically, and with the same bytes for the same payload.

    Given a file name, torch would write that (temporary) name into the file.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(payload, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_tensors(path: str | Path) -> dict[str, Any]:
    """What `write_tensors` wrote, on the CPU; runs no code of the file's.

    Raises:
        UserError: missing, cut short, or something other than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: cannot be read (there is no such file); run the stage that writes it")
    payload = _read(path)
    if payload is None:
        raise UserError(f"{path}: is damaged or no file of tensors; delete it and run the stage that writes it")
    return payload


def _read(path: Path) -> dict[str, Any] | None:
    import torch

    if not zipfile.is_zipfile(path):  # what torch.save writes
        return None
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError):
        return None
    return payload if isinstance(payload, dict) else None


def experiment_name() -> str | None:
    """What `dvc exp show` calls the experiment that runs this job; None outside of one."""
    return os.environ.get("DVC_EXP_NAME") or None


def project_folder() -> Path:
    """Where the project stays: the working directory (empty path), or, of an experiment elsewhere, its project."""
    root = os.environ.get("DVC_ROOT")
    if experiment_name() is None or not root or Path(root).resolve() == Path.cwd():
        return Path()
    return Path(root)
