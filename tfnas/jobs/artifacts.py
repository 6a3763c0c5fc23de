"""Artifacts: written atomically, read with clear errors, digested, and recorded with their provenance."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tfnas import __version__
from tfnas.jobs.errors import UserError

PROVENANCE = "provenance.json"  # written next to the outputs of every job
SNAKEMAKE_MARK = ".snakemake_timestamp"  # .dvcignore leaves it out as well
NOT_IN_XML = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
RECORDED_PACKAGES = ("torch", "torchvision", "numpy")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path next to `path`: renamed to it when the block succeeds, removed when it fails.

    The contents are flushed to disk before the rename, so a power cut leaves either the old file or the new one.

    Raises:
        OSError: naming `path`, where the disk is full or may not be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
        flush_to_disk(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder; nobody may be writing there."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def flush_to_disk(path: Path) -> None:
    """Wait until the disk has a file's contents, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, payload: Any) -> None:
    write_text(path, json.dumps(payload, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """A header and one line per row, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: str | Path, *, kind: str | None = None, version: int | None = None) -> dict[str, Any]:
    """The object in a JSON file; with `kind` and `version` its two header fields must agree.

    Raises:
        UserError: missing, unreadable, truncated, or of another kind or version.
    """
    try:
        payload = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); delete it and run the stage that writes it") from None
    if not isinstance(payload, dict):
        raise UserError(f"{path}: holds a JSON {type(payload).__name__}, expected an object")
    if kind is not None and payload.get("kind") != kind:
        raise UserError(f"{path}: kind is {payload.get('kind')!r}, expected {kind!r}; pass the right file")
    if version is not None and payload.get("format_version") != version:
        raise UserError(
            f"{path}: format_version is {payload.get('format_version')!r}, this tfnas reads {version}; write it anew"
        )
    return payload


def shorten(text: str, longest: int) -> str:
    """A name short enough for a figure: cut with an ellipsis, and with � for characters that XML forbids."""
    text = NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def spreadsheet_cell(text: str) -> str:
    """A text that a spreadsheet shows instead of running: an apostrophe goes before what looks like a formula.

    Only for files that people open; files between stages keep names unchanged.
    """
    if not text.startswith(FORMULA_STARTS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def short_repr(value: object) -> str:
    """The `repr` of a value for an error message, 60 characters at most."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: str | Path) -> str:
    """SHA-256 of a file; of a folder, over its files' relative names and digests in order.

    The mark that Snakemake leaves in folders does not count, so that both engines' results have one digest.
    """
    path = Path(path)
    if path.is_dir():
        files = (f for f in sorted(path.rglob("*")) if f.is_file() and f.name != SNAKEMAKE_MARK)
        rows = (f"{f.relative_to(path)} {digest_file(f)}" for f in files)
        return digest_text("\n".join(rows))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_params(params: Any) -> str:
    """Digest of plain parameter values, independent of key order."""
    return digest_text(json.dumps(params, sort_keys=True, default=str))


def git_commit() -> str:
    """The checked-out commit, with `-dirty` when tracked files differ; `unknown` outside git."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = ["git", "status", "--porcelain", "--untracked-files=no"]
        dirty = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if dirty else head


def git_trouble(folder: str | Path = ".") -> str | None:
    """Why results of a folder record no commit, and what helps; None where they do."""
    asked = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(asked, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True)
    except OSError:
        return "git is not installed, so results record no commit; install it"
    if done.returncode == 0:
        return None
    place = Path(folder).resolve()
    if "dubious ownership" in done.stderr:
        trust = f"git config --global --add safe.directory {shlex.quote(str(place))}"
        return f"git does not trust {place}, which another user owns, so results record no commit; {trust}"
    begin = "git add -A && git commit -m start"
    if "not a git repository" in done.stderr:
        return (
            f"{place} is in no git repository: results record no commit, and none can be compared or brought back by"
            f" one; to have that: git init && {begin}"
        )
    return f"the git repository of {place} has no commit to record with results; {begin}"


def package_versions() -> dict[str, str]:
    """Of Python, of this library, which need not be installed, and of the installed ones of `RECORDED_PACKAGES`."""
    found = {"python": platform.python_version(), "tfnas": __version__}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_provenance(
    folder: str | Path,
    *,
    stage: str,
    params: Any,
    inputs: Iterable[str | Path],
    outputs: Iterable[str | Path],
    device: str,
    code: Mapping[str, str] | None = None,
    mlflow_run_id: str | None = None,
) -> None:
    """Write `provenance.json` next to a job's outputs.

    It is a file of its own, so that a job repeated with the same outcome leaves the same bytes in
    everything that later stages read.

    Args:
        code: of `digest_code`, taken before the job ran.
    """
    record = {
        "kind": "provenance",
        "format_version": 1,
        "stage": stage,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "params_digest": digest_params(params),
        "params": params,
        "code": dict(code or {}),
        "inputs": {str(path): digest_file(path) for path in inputs},
        "outputs": {str(path): digest_file(path) for path in outputs},
        "device": device,
        "packages": package_versions(),
        "mlflow_run_id": mlflow_run_id,
    }
    write_json(Path(folder) / PROVENANCE, record | {"seal": seal(record)})


def seal(record: Mapping[str, Any]) -> str:
    """Digest of a provenance record without its seal: an edit by hand breaks it. It is no signature, and has no key."""
    return digest_params({key: value for key, value in record.items() if key != "seal"})
