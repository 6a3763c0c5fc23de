"""Whether a recorded commit is still to be had in this repository."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tfnas.runtime.artifacts import git_trouble

CHECKED_OUT, KNOWN, UNKNOWN, NONE = "checked out", "in this repository", "not in this repository", "not recorded"
DIRTY = "-dirty"


@dataclass(frozen=True)
class Commit:
    """A commit that a job ran from; `dirty`: with changes that no commit holds."""

    id: str
    dirty: bool
    state: str  # one of those above, or why git cannot be asked


def find_commit(recorded: str, folder: Path) -> Commit:
    """What has become of a commit as `git_commit` wrote it, in the repository of a folder."""
    commit, dirty = recorded.removesuffix(DIRTY), recorded.endswith(DIRTY)
    if not commit or commit == "unknown":
        return Commit("", dirty, NONE)
    if (trouble := git_trouble(folder)) is not None:
        return Commit(commit, dirty, trouble)
    if _git(folder, "rev-parse", "HEAD") == commit:
        return Commit(commit, dirty, CHECKED_OUT)
    found = _git(folder, "rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}")
    return Commit(commit, dirty, KNOWN if found == commit else UNKNOWN)


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; empty where it fails or is not there."""
    try:
        finished = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:
        return ""
    return finished.stdout.strip() if finished.returncode == 0 else ""
