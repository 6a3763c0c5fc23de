"""Calling either engine in a project folder, as a user with the environment activated does.

Snakemake and DVC are forked from a process that has imported them: starting each anew took half of these tests' time.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

BIN = Path(sys.executable).parent
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["preloaded"])


def call(folder: Path, *command: str, ok: bool | None = True) -> str:
    """Both outputs of a command that must succeed (`ok`), fail (not `ok`), or may do either (None)."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    if command[0] in ("snakemake", "dvc"):
        code, text = _forked(folder, command, environment)
    else:
        finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        code, text = finished.returncode, finished.stdout + finished.stderr
    assert ok is None or (code == 0) == ok, text
    return text


def _forked(folder: Path, command: tuple[str, ...], environment: dict[str, str]) -> tuple[int, str]:
    with tempfile.NamedTemporaryFile("r") as output:
        process = SERVER.Process(target=_run, args=(str(folder), command, environment, output.name))
        process.start()
        process.join()
        code = process.exitcode
        assert code is not None
        return code, output.read()


def _run(folder: str, command: tuple[str, ...], environment: dict[str, str], output: str) -> None:
    """In the forked process: become the command."""
    with Path(output).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [str(BIN / command[0]), *command[1:]]
    if command[0] == "dvc":
        from dvc.cli import main

        sys.exit(main(list(command[1:])))
    from snakemake.cli import main as snakemake_main

    snakemake_main()


def snakemake(folder: Path, *options: str, ok: bool | None = True) -> str:
    return call(folder, "snakemake", "--cores", "2", *options, ok=ok)


def set_param(folder: Path, key: str, value: object) -> None:
    """Write one value into the folder's params.yaml."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    section = params
    for part in parents:
        section = section[part]
    section[last] = value
    path.write_text(yaml.safe_dump(params))


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
