"""Errors that the user can fix, each told in one line."""

from __future__ import annotations

import errno

from tfnas.jobs.redaction import redact

_DISK = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your quota of the disk is used up; free some space",
    errno.EFBIG: "the file would be larger than this system allows; raise the limit (ulimit -f)",
    errno.EROFS: "the disk is mounted read-only; make it writable",
    errno.EISDIR: "is a folder where a file is needed; move it away",
    errno.ENOTDIR: "lies below a file; move that away",
    errno.EACCES: "may not be written or read by this user; change the permissions",
    errno.EPERM: "may not be changed by this user; change the permissions",
}


class UserError(ValueError):
    """A mistake the user can correct; its text names file, key, value and the fix.

    Commands and stage scripts print it as one line and exit with code 2, without a traceback. Credentials in its text,
    of an address say, are never shown.
    """

    def __str__(self) -> str:
        return redact(super().__str__())


class NonFiniteLossError(UserError):
    """A loss that is infinite or not a number: the search or the training has diverged."""

    def __init__(self, value: float, *, loss: str = "loss", step: int | None = None) -> None:
        super().__init__(f"the {loss} is {value}")
        self.step = step  # counted from 1 within its epoch, where the raiser knows it


def reason_of(error: BaseException) -> str:
    """The first line of an error's text that says something, whole and without credentials; its type without any."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    return redact(next((line for line in lines if line), type(error).__name__))


def explain_disk(error: OSError) -> UserError | None:
    """One line for a disk that is full or may not be written; None for anything else."""
    if error.errno not in _DISK:
        return None
    where = error.filename or "the results"
    return UserError(f"{where}: {_DISK[error.errno]}, and run the same command again; it resumes where it stopped")
