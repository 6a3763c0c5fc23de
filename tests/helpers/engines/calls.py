"""Calling either engine in a project folder, as a user with the environment activated does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.engines.forked import run_forked
from tests.helpers.projects import ROOT

BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    """The environment activated, with this checkout's library and tests on the import path."""
    paths = {"PATH": BIN, "PYTHONPATH": ROOT}
    joined = {name: os.pathsep.join(filter(None, (str(path), os.environ.get(name)))) for name, path in paths.items()}
    return {**os.environ, **joined, "DVC_NO_ANALYTICS": "1"}


def call(folder: Path, *command: str, ok: bool | None = True) -> str:
    """Both outputs of a command that must succeed (`ok`), fail (not `ok`), or may do either (None)."""
    variables = environment()
    variables.pop("MLFLOW_TRACKING_URI", None)
    if command[0] in ("snakemake", "dvc"):
        code, text = run_forked(_engine, *command, folder=folder, environment=variables)
    else:
        finished = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        code, text = finished.returncode, finished.stdout + finished.stderr
    assert ok is None or (code == 0) == ok, text
    return text


def _engine(*command: str) -> None:
    """In a process of its own: become the command."""
    sys.argv = [str(BIN / command[0]), *command[1:]]
    if command[0] == "dvc":
        from dvc.cli import main

        sys.exit(main(list(command[1:])))
    from snakemake.cli import main as snakemake_main

    snakemake_main()


def snakemake(folder: Path, *options: str, ok: bool | None = True) -> str:
    text = call(folder, "snakemake", "--cores", "2", *options, ok=ok)
    assert not ok or "InputFunctionException" not in text, text  # Snakemake goes on after one, with another rule
    return text


def planned_by_snakemake(folder: Path) -> set[str]:
    """The jobs that a dry run would run, by the names of their DVC stages."""
    messages = re.findall(r"^Job \d+: (\w+)((?: [\w-]+)*):", snakemake(folder, "--dry-run"), re.MULTILINE)
    return {"@".join(part for part in (rule, "-".join(values.split())) if part) for rule, values in messages} - {"all"}


def planned_by_dvc(folder: Path) -> set[str]:
    """The stages that DVC would run, or take from its cache instead."""
    return set(re.findall(r"Running stage '(\S+)'", call(folder, "dvc", "repro", "--dry", "--force-downstream")))


def commit(folder: Path, message: str) -> None:
    """Commit parameters and results, as the manual says."""
    call(folder, "git", "add", "params.yaml", "dvc.lock")
    call(folder, "git", "commit", "--quiet", "--message", message)
