"""Errors that the user can fix, each told in one line; and credentials, kept out of everything that is printed."""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import IO, Any
from urllib.parse import unquote

HIDDEN = "***"
_SECRET_WORD = r"password|passwd|pwd|token|secret|signature|credential|api_?key|access_?key|account_?key"
_USER_INFO = re.compile(  # user:password@ of a URI; a slash in a password belongs there only if percent-encoded
    r"""(?<=://)(?:[^\s/?#"<>]*|[^\s/:@"<>]*:(?!\d+[/?#])[^\s"<>]*)@"""
)
_NAMED = re.compile(
    rf"""((?:[\w.-]*(?:{_SECRET_WORD})[\w.-]*|(?<=[?&;])(?:sig|key|auth|code))=)[^\s&;,'"<>#)]+""", re.I
)
_HEADER = re.compile(r"""(authorization['"]?\s*[:=]\s*['"]?\w+\s+)[^\s'",]+""", re.I)
_SECRET_VARIABLE = re.compile(rf"(?:^|_)(?:{_SECRET_WORD}|pgpassword|connection_string|access_key_id)$", re.I)
_FOLDER_VARIABLES = ("PWD", "OLDPWD")
_URI_PASSWORD = re.compile(r"""://[^\s/:@]*:(?!\d+[/?#])([^\s"<>]+)@|://([^\s/:@"<>]{8,})@""")  # or a token and no user
_PLAIN_WORDS = ("true", "false", "none", "null")
_SHORTEST = 3  # a shorter value would blot out half of any text

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


def redact(text: str) -> str:
    """A text without credentials: those in URIs, query strings and headers, and whatever the environment holds.

    `http://user:secret@host` becomes `http://***@host`; hosts, paths and names stay readable.
    """
    if "://" in text:
        text = _USER_INFO.sub(f"{HIDDEN}@", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", _NAMED.sub(rf"\1{HIDDEN}", text))
    for secret in _secrets_of_environment():
        if secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def hide_secrets() -> None:
    """From now on redact what this process writes to its output streams: other libraries, warnings, tracebacks too."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Redacted):
            setattr(sys, name, _Redacted(stream))


def _secrets_of_environment() -> set[str]:
    """Values of variables named as secrets, and passwords in URIs of any variable, as written and decoded."""
    found = set()
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name) and name not in _FOLDER_VARIABLES:
            found.add(value)
        if "@" in value and "://" in value:
            found |= {first or second for first, second in _URI_PASSWORD.findall(value)}
    found |= {unquote(secret) for secret in found}
    return {secret for secret in found if len(secret) >= _SHORTEST and secret.lower() not in _PLAIN_WORDS}


class _Redacted:
    """A text stream that redacts what is written to it, and is the stream in everything else."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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
