"""Calling either engine in a project folder, as a user with the environment activated does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

BIN = Path(sys.executable).parent


def call(folder: Path, *command: str, ok: bool | None = True) -> str:
    """Both outputs of a command that must succeed (`ok`), fail (not `ok`), or may do either (None)."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ok is None or (finished.returncode == 0) == ok, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


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
    text = snakemake(folder, "--dry-run")
    found = set()
    for block in re.split(r"\n(?=rule \w+:\n)", text)[1:]:
        rule = block[len("rule ") : block.index(":")]
        wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
        values = re.findall(r"\w+=([\w-]+)", wildcards[1]) if wildcards else []
        found.add("@".join(part for part in (rule, "-".join(values)) if part))
    return found - {"all"}


def planned_by_dvc(folder: Path) -> set[str]:
    """The stages that DVC would run, or take from its cache instead."""
    return set(re.findall(r"Running stage '(\S+)'", call(folder, "dvc", "repro", "--dry", "--force-downstream")))
