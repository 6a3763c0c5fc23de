"""DVC in a project folder: its stages and recorded results, its dvc.lock, and its list of running processes.

An edit from A to B and back to A is a trap: Snakemake's own records can call a file up to date that DVC has replaced
since. So the digest of dvc.lock is kept next to those records, and while it differs, Snakemake must not guess.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.jobs.artifacts import digest_file, write_text
from tfnas.jobs.errors import UserError

LOCK = "dvc.lock"
KNOWN_LOCK = Path(".snakemake") / "tfnas-dvc-lock.sha256"  # of the dvc.lock that Snakemake's records agree with
NO_SCM = re.compile(r"^\s*no_scm\s*=\s*true\b", re.MULTILINE | re.IGNORECASE)
NO_GIT = "    no_scm = true  # by tfnas: there is no git repository\n"
CORE = "[core]\n"
SAME, CHANGED, MISSING = "same", "changed", "missing"
NOT_RECORDED, NO_PROJECT = "not recorded", "no DVC project"
LIST = Path(".dvc") / "tmp" / "rwlock"  # who works on which files
_entered = ExitStack()


@contextmanager
def open_project(folder: Path) -> Iterator[DvcProject]:
    """The DVC project of a folder.

    Raises:
        UserError: there is none, or DVC fails within the block.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    settle_scm(folder)
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo

    try:
        with set_loggers_level(logging.CRITICAL), Repo(str(folder)) as repo:
            yield DvcProject(repo, folder)
    except DvcException as error:
        raise UserError(f"{folder / 'dvc.yaml'}: DVC says: {' '.join(str(error).split())}") from None


def settle_scm(folder: Path) -> None:
    """Let DVC work without git in a folder outside any repository (an unpacked zip file), and with git elsewhere.

    Sets `core.no_scm` in `.dvc/config.local`, which git ignores; without it, DVC refuses every command.
    """
    path = folder / ".dvc" / "config.local"
    shared = folder / ".dvc" / "config"
    if not path.parent.is_dir() or (shared.exists() and NO_SCM.search(shared.read_text(encoding="utf-8"))):
        return
    has_git = any((place / ".git").exists() for place in (folder.resolve(), *folder.resolve().parents))
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not has_git and not NO_SCM.search(text):
        text = text if CORE in text else CORE + text
        write_text(path, text.replace(CORE, CORE + NO_GIT, 1))
    elif has_git and NO_GIT in text:
        write_text(path, text.replace(NO_GIT, ""))


class DvcProject:
    """An open DVC project: its stages, which of them are stale, and committing without running.

    DVC's own messages and progress bars are suppressed; its errors become a `UserError`.
    """

    def __init__(self, repo: Any, folder: Path) -> None:
        self._repo = repo
        self._folder = folder.resolve()

    def outputs(self) -> dict[str, list[str]]:
        """The files that each stage writes, relative to the folder, in the order of dvc.yaml."""
        return {stage.name: [self._relative(out.fs_path) for out in stage.outs] for stage in self._repo.index.stages}

    def changed(self) -> set[str]:
        """Stages with an input, a parameter or an output that differs from dvc.lock."""
        addresses = set(self._repo.status())  # they depend on the working directory
        return {stage.name for stage in self._repo.index.stages if stage.addressing in addresses}

    def complete(self) -> set[str]:
        """Stages whose dependencies all exist: DVC can commit no other."""
        stages = self._repo.index.stages
        return {stage.name for stage in stages if all(Path(dep.fs_path).exists() for dep in stage.deps)}

    def stale(self) -> set[str]:
        """Changed stages and their dependents: what DVC would run again."""
        return self.with_dependents(self.changed())

    def with_dependents(self, names: set[str]) -> set[str]:
        """Stages of these names, and their dependents."""
        import networkx

        graph = self._repo.index.graph  # from a stage to those that it depends on
        return {
            stage.name
            for stage in self._repo.index.stages
            if any(other.name in names for other in {stage, *networkx.descendants(graph, stage)})
        }

    def commit(self, name: str) -> None:
        """Record a stage as done with the present files, in dvc.lock and the cache.

        The files themselves are left alone (DVC would replace them by links into its cache), so that Snakemake finds
        the timestamps that it knows.
        """
        with chdir(self._folder):  # where DVC looks for a stage that is given by its name
            self._repo.commit(name, force=True, relink=False)

    def checkout(self, *, force: bool) -> list[str]:
        """Put the outputs that dvc.lock records in place; returns those that the cache lacks.

        Raises:
            UserError: it would replace files that DVC has not saved, without `force`.
        """
        from dvc.exceptions import CheckoutError

        try:
            self._repo.checkout(force=force)
        except CheckoutError as error:
            return [self._relative(str(Path(path).resolve())) for path in error.target_infos]
        return []

    def note_links(self, names: Iterable[str]) -> None:
        """Let `dvc checkout` know outputs as its own, which it removes once dvc.yaml does not have them any more.

        It recognizes a file by its timestamp, so this must follow each touch.
        """
        wanted = set(names)
        for stage in self._repo.index.stages:
            for out in stage.outs if stage.name in wanted else ():
                self._repo.state.save_link(out.fs_path, self._repo.fs)

    def values_at(self, revision: str | None) -> ValuesAt | None:
        """The values of a commit or a DVC experiment (None: of the folder as it is); None where there is none."""
        from dvc.scm import RevError, resolve_rev

        try:
            name = "" if revision is None else resolve_rev(self._repo.scm, revision)  # as DVC keys the folder
        except RevError:
            return None
        revisions = None if revision is None else [name]
        params = self._repo.params.show(revs=revisions, hide_workspace=False)[name].get("data", {})
        metrics = self._repo.metrics.show(revs=revisions, hide_workspace=False)[name].get("data", {})
        return ValuesAt(
            {path: file["data"] for path, file in params.items() if "data" in file},
            {path: file["data"] for path, file in metrics.items() if "data" in file},
            [path for path, file in metrics.items() if "error" in file],
        )

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self._folder)


@dataclass(frozen=True)
class ValuesAt:
    """Parameter and metrics files at a revision, by their paths; `missing` are metrics that the cache does not hold."""

    params: dict[str, Any]
    metrics: dict[str, Any]
    missing: list[str]


def lock_digest(folder: Path) -> str:
    """Digest of dvc.lock; empty when there is none."""
    path = folder / LOCK
    return digest_file(path) if path.exists() else ""


def lock_has_moved(folder: Path) -> bool:
    """Whether DVC has run since the last `remember_lock`."""
    known = folder / KNOWN_LOCK
    return lock_digest(folder) != (known.read_text(encoding="utf-8") if known.exists() else "")


def remember_lock(folder: Path) -> None:
    """Record that Snakemake's records agree with dvc.lock."""
    write_text(folder / KNOWN_LOCK, lock_digest(folder))


@dataclass(frozen=True)
class DvcRecord:
    """The DVC stage that writes a file, the digest in dvc.lock, and whether the file still has it."""

    stage: str | None
    md5: str | None
    state: str  # SAME, CHANGED, ...
    cached: bool = False  # `dvc checkout` restores the recorded file without a remote


def dvc_records(folder: Path, paths: Sequence[Path]) -> tuple[DvcRecord, ...]:
    """What dvc.lock says about each file, or about the output folder that it is in.

    Raises:
        UserError: DVC cannot read the project's files.
    """
    nothing = tuple(DvcRecord(None, None, NO_PROJECT) for _ in paths)
    if not (folder / "dvc.yaml").exists():
        return nothing
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(folder)) as repo:
            outs = [(stage.name, out) for stage in repo.index.stages for out in stage.outs]
            return tuple(_find(outs, path.absolute()) for path in paths)
    except NotDvcRepoError:
        return nothing
    except DvcException as error:
        raise UserError(f"{folder / 'dvc.yaml'}: DVC cannot read the project ({error})") from None


def _find(outs: Sequence[tuple[str, Any]], file: Path) -> DvcRecord:
    for stage, out in outs:
        if not file.is_relative_to(out.fs_path):
            continue
        if not out.hash_info:
            return DvcRecord(stage, None, NOT_RECORDED)
        missing = not Path(out.fs_path).exists()
        state = MISSING if missing else CHANGED if out.changed_checksum() else SAME
        return DvcRecord(stage, out.hash_info.value, state, cached=not out.changed_cache())
    return DvcRecord(None, None, NOT_RECORDED)


def check_dvc_idle(folder: Path) -> None:
    """Raise UserError where DVC is running stages in this folder."""
    listed = _living(folder / LIST)
    for entry in (*listed["write"].values(), *(entry for entries in listed["read"].values() for entry in entries)):
        if entry["pid"] != os.getpid() and entry["cmd"] != "snakemake":
            who = f"{entry['cmd']}, process {entry['pid']}"
            raise UserError(f"{folder.resolve()}: DVC is at work here ({who}); wait until it ends, or stop it")


def keep_dvc_out(folder: Path) -> None:
    """Enter the whole folder into DVC's list: it refuses to run stages until `let_dvc_in` or this process ends.

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
    """Leave the list, so that this process itself may use DVC."""
    _entered.close()


def _living(path: Path) -> dict[str, dict[str, Any]]:
    """The list without processes that have ended, which are dropped from the file as well.

    DVC drops them itself, but mistakes a new process with the same id for the old one.
    """
    try:
        written, listed = path.stat().st_mtime, json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"write": {}, "read": {}}
    except ValueError:  # truncated by a power cut; DVC would refuse it
        written, listed = 0.0, {"write": {}, "read": {"": []}}
    write = {name: entry for name, entry in listed.get("write", {}).items() if _lives(entry, written)}
    read = {name: [e for e in entries if _lives(e, written)] for name, entries in listed.get("read", {}).items()}
    living = {"write": write, "read": {name: entries for name, entries in read.items() if entries}}
    if living != {"write": {}, "read": {}, **listed}:
        write_text(path, json.dumps(living))
    return living


def _lives(entry: dict[str, Any], written: float) -> bool:
    """Whether the process in an entry, of a list written at that time, is still the same one."""
    import psutil

    try:
        return bool(psutil.Process(entry["pid"]).create_time() <= written + 1.0)
    except psutil.NoSuchProcess:
        return False
