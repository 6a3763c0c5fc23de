"""Processes forked from one that has imported both engines: importing them anew takes seconds each time."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
# Names that the server finds wherever it is started: it leaves out in silence what it cannot import.
SERVER.set_forkserver_preload(
    [
        "dvc.cli",
        "dvc.commands.repro",
        "dvc.commands.status",
        "dvc.repo.reproduce",
        "snakemake.cli",
        "snakemake.api",
        "snakemake.persistence.file",
        "snakemake.workflow",
        "tfnas.engines.sync",
    ]
)


def run_forked(
    target: Callable[..., Any], *arguments: object, folder: Path, environment: Mapping[str, str]
) -> tuple[int, str]:
    """The exit code of a function in a process of its own, and what that printed."""
    with tempfile.NamedTemporaryFile("r") as output:
        process = SERVER.Process(target=_run, args=(target, arguments, str(folder), dict(environment), output.name))
        process.start()
        process.join()
        code = process.exitcode
        assert code is not None
        return code, output.read()


def _run(
    target: Callable[..., Any], arguments: tuple[object, ...], folder: str, environment: dict[str, str], output: str
) -> None:
    with Path(output).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    target(*arguments)
