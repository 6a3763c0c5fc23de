"""Every command in the README exists as written; those that take no time are run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tfnas.cli import build_parser, main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [line.partition("#")[0].strip() for line in re.findall(r"^    (?:\$ )?(\S.*)$", README, re.MULTILINE)]
TFNAS = [command for command in COMMANDS if command.startswith("tfnas ")]


def test_the_readme_shows_commands() -> None:
    assert len(TFNAS) >= 7
    assert {"make run", "make test", "make ui", "snakemake --cores all", "dvc repro"} <= set(COMMANDS)
    assert len(README.splitlines()) < 200


@pytest.mark.parametrize("command", TFNAS)
def test_a_command_takes_the_options_it_is_shown_with(command) -> None:
    build_parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("command", [c for c in TFNAS if c.startswith(("tfnas zoo", "tfnas init --list"))])
def test_quick_commands_run(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out


def test_make_has_every_target_that_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {command.split()[1] for command in COMMANDS if command.startswith("make ")} <= targets


def test_the_python_example_runs(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = re.findall(r"^    ((?:import|from|network =) .*|network = .*)$", README, re.MULTILINE)
    assert len(lines) >= 4
    exec("\n".join(lines), {})


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(link) -> None:
    assert (ROOT / link).exists(), link
