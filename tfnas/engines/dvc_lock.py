"""Whether dvc.lock is still the one that Snakemake knows.

An edit from A to B and back to A is the trap: Snakemake's own records can call a file up to date that DVC has
replaced since. So the digest of dvc.lock is kept beside those records; while it differs, Snakemake must not guess.
"""

from __future__ import annotations

from pathlib import Path

from tfnas.runtime.artifacts import digest_file, write_text

LOCK = "dvc.lock"
KNOWN = Path(".snakemake") / "tfnas-dvc-lock.sha256"


def lock_digest(folder: Path) -> str:
    """Digest of dvc.lock; empty when there is none."""
    path = folder / LOCK
    return digest_file(path) if path.exists() else ""


def lock_has_moved(folder: Path) -> bool:
    """Whether DVC has run since the last `remember_lock`."""
    known = folder / KNOWN
    return lock_digest(folder) != (known.read_text(encoding="utf-8") if known.exists() else "")


def remember_lock(folder: Path) -> None:
    """Note that Snakemake's records agree with dvc.lock."""
    write_text(folder / KNOWN, lock_digest(folder))
