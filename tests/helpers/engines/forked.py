"""Processes forked from one that has imported both engines: importing them anew takes seconds each time."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.projects import ROOT

SERVER = multiprocessing.get_context("forkserver")
PRELOADED = "tests.helpers.engines.preloaded"


@cache
def start_server() -> None:
    """Start the process that is forked, and import `PRELOADED`; it passes in silence over what it cannot import."""
    SERVER.set_forkserver_preload([PRELOADED])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        forkserver.ensure_running()


def run_forked(
    target: Callable[..., Any], *arguments: object, folder: Path, environment: Mapping[str, str]
) -> tuple[int, str]:
    """The exit code of a function in a process of its own, and what that printed."""
    start_server()
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
    assert PRELOADED in sys.modules
    with Path(output).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    target(*arguments)
