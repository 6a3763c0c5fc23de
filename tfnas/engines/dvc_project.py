"""What DVC says of a project folder, and what it is told."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.runtime.artifacts import write_text
from tfnas.runtime.errors import UserError

NO_SCM = re.compile(r"^\s*no_scm\s*=\s*true\b", re.MULTILINE | re.IGNORECASE)
NO_GIT = "    no_scm = true  # by tfnas: there is no git repository\n"
CORE = "[core]\n"


@dataclass(frozen=True)
class ValuesAt:
    """Parameter and metrics files at a revision, by their paths; `missing` are metrics that the cache does not hold."""

    params: dict[str, Any]
    metrics: dict[str, Any]
    missing: list[str]


class DvcProject:
    """An open DVC project: its stages, which of them are stale, and committing without running.

    DVC's own messages and progress bars are left out; its errors are a `UserError`.
    """

    def __init__(self, repo: Any, folder: Path) -> None:
        self._repo = repo
        self._folder = folder.resolve()

    def outputs(self) -> dict[str, list[str]]:
        """Every stage with the files that it writes, relative to the folder, in the order of dvc.yaml."""
        return {stage.name: [self._relative(out.fs_path) for out in stage.outs] for stage in self._repo.index.stages}

    def changed(self) -> set[str]:
        """Stages of which an input, a parameter or an output is not as dvc.lock has it."""
        addresses = set(self._repo.status())  # they depend on the working directory
        return {stage.name for stage in self._repo.index.stages if stage.addressing in addresses}

    def stale(self) -> set[str]:
        """Stages that have changed, and all that depend on them: what DVC would run again."""
        return self.with_dependents(self.changed())

    def with_dependents(self, names: set[str]) -> set[str]:
        """Stages of these names, and all that depend on them."""
        import networkx

        graph = self._repo.index.graph  # from a stage to those that it depends on
        return {
            stage.name
            for stage in self._repo.index.stages
            if any(other.name in names for other in {stage, *networkx.descendants(graph, stage)})
        }

    def commit(self, name: str) -> None:
        """Take a stage as done with the files that are there, into dvc.lock and the cache.

        The files themselves stay as they are (DVC would replace them by links into its cache), so that Snakemake
        finds the times that it knows.
        """
        with chdir(self._folder):  # where DVC looks for a stage that is given by its name
            self._repo.commit(name, force=True, relink=False)

    def checkout(self, *, force: bool) -> list[str]:
        """Put the outputs of dvc.lock in place; those that the cache does not hold.

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
        """Let `dvc checkout` know the outputs of stages as its own, which it removes where dvc.yaml has them no more.

        It knows a file again by its time, so this follows each touch.
        """
        wanted = set(names)
        for stage in self._repo.index.stages:
            for out in stage.outs if stage.name in wanted else ():
                self._repo.state.save_link(out.fs_path, self._repo.fs)

    def values_at(self, revision: str | None) -> ValuesAt | None:
        """What a commit, or a DVC experiment, has; of the folder as it stands for None. None: no such revision."""
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


def settle_scm(folder: Path) -> None:
    """Let DVC do without git in a folder that is in no repository, as of a zip file, and use git where there is one.

    By `core.no_scm` in `.dvc/config.local`, which git ignores; DVC refuses every command otherwise.
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
