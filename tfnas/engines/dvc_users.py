"""DVC's list of who works on which files (`.dvc/tmp/rwlock`): read, and entered by a Snakemake that runs jobs."""

from __future__ import annotations

import atexit
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tfnas.runtime.artifacts import write_text
from tfnas.runtime.errors import UserError

LIST = Path(".dvc") / "tmp" / "rwlock"

_entered = ExitStack()


def check_dvc_idle(folder: Path) -> None:
    """Raise UserError where DVC runs stages in this folder."""
    listed = _living(folder / LIST)
    for entry in (*listed["write"].values(), *(entry for entries in listed["read"].values() for entry in entries)):
        if entry["pid"] != os.getpid() and entry["cmd"] != "snakemake":
            who = f"{entry['cmd']}, process {entry['pid']}"
            raise UserError(f"{folder.resolve()}: DVC is at work here ({who}); wait until it ends, or stop it")


def keep_dvc_out(folder: Path) -> None:
    """Enter the whole folder into the list, until `let_dvc_in` or this process's end: DVC refuses to run a stage.

    Raises:
        UserError: DVC works in this folder.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import localfs
    from dvc.rwlock import rwlock

    root = folder.resolve()
    if not (root / ".dvc").is_dir():
        return
    (root / LIST).parent.mkdir(exist_ok=True)
    try:
        check_dvc_idle(root)
        _entered.enter_context(rwlock(str((root / LIST).parent), localfs, "snakemake", [], [str(root)], False))
    except DvcException as error:  # it has begun since
        raise UserError(f"{root}: DVC is at work here ({' '.join(str(error).split())})") from None
    atexit.register(let_dvc_in)


def let_dvc_in() -> None:
    """Leave the list again: this process itself may use DVC now."""
    _entered.close()


def _living(path: Path) -> dict[str, dict[str, Any]]:
    """The list, without those who have ended; they are dropped from the file, too.

    DVC drops them itself, but takes a process that has got the number since for the same one.
    """
    try:
        written, listed = path.stat().st_mtime, json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"write": {}, "read": {}}
    except ValueError:  # cut off by a power cut; DVC would refuse it
        written, listed = 0.0, {"write": {}, "read": {"": []}}
    write = {name: entry for name, entry in listed.get("write", {}).items() if _lives(entry, written)}
    read = {name: [e for e in entries if _lives(e, written)] for name, entries in listed.get("read", {}).items()}
    living = {"write": write, "read": {name: entries for name, entries in read.items() if entries}}
    if living != {"write": {}, "read": {}, **listed}:
        write_text(path, json.dumps(living))
    return living


def _lives(entry: dict[str, Any], written: float) -> bool:
    """Whether the process that an entry of a list written then names is still the one it meant."""
    import psutil

    try:
        return bool(psutil.Process(entry["pid"]).create_time() <= written + 1.0)
    except psutil.NoSuchProcess:
        return False
