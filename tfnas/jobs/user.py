"""A user id without a name, or without a home to write to, as in containers: what libraries ask of either is provided.

Snakemake, DVC, MLflow, matplotlib and torch ask for the user's name and write caches below the home; each of them ends
with a traceback where there is none."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python's getpass looks, before the list of users
SPARE = Path(".snakemake") / "home"  # of the project's folder; ignored by git and DVC


def provide_for_user() -> None:
    """Set variables, for this process and those it starts, where the user has no name or no place for caches.

    A home that can be read stays what it is, since it may hold settings and keys.
    """
    if not any(os.environ.get(name) for name in NAMES) and not _is_listed():
        os.environ["LOGNAME"] = f"user-{os.getuid()}"
    home = Path(os.environ.get("HOME") or "~").expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    if home.is_absolute() and _can_make(home) and _can_make(cache):
        return
    spare = _spare_home()
    if os.environ.get("HOME") == "" or not home.is_absolute() or not home.is_dir():
        os.environ["HOME"] = str(spare)
    os.environ["XDG_CACHE_HOME"] = str(spare / ".cache")
    os.environ.setdefault("MPLCONFIGDIR", str(spare / ".config" / "matplotlib"))


def _is_listed() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _can_make(folder: Path) -> bool:
    """Whether this user can write into a folder, or make it."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _spare_home() -> Path:
    """A folder for what libraries keep: in the project, or, elsewhere and where that is read-only, a temporary one."""
    if Path("Snakefile").exists() and _can_make(spare := SPARE.absolute()):
        spare.mkdir(parents=True, exist_ok=True)
        return spare
    return Path(tempfile.mkdtemp(prefix="tfnas-home-"))
