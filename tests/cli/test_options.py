"""What every command does with its options: paths are looked at before it works, output may end early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfnas.cli import build_parser, main
from tfnas.cli._console import OutputFile, OutputFolder

COMMANDS = {  # each option that names what is written
    "--out:init": ["init", "digits"],
    "--out:suggest": ["suggest", "--data", "folder", "--limit", "15ms"],
    "--plot": ["latency", "--table", "none.json"],
    "--out:profile": ["profile", "--space", "tf-nas"],
    "--out:export": ["export", "TF-NAS-D"],
    "--out:compare": ["compare"],
    "--out:compare-runs": ["compare-runs", "a", "b"],
    "--svg": ["zoo", "show", "TF-NAS-A"],
    "--png": ["zoo", "show", "TF-NAS-A"],
    "--per-class": ["evaluate", "none.pt", "--data", "none"],
    "--json": ["evaluate", "none.pt", "--data", "none"],
    "--out:import": ["import", "config", "none"],
    "--out:table": ["table", "copy", "tf-nas-tiny-epyc-torch"],
}


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("kept")


def refused(capsys, arguments: list[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1, captured
    return captured.err


@pytest.mark.parametrize("option", COMMANDS)
def test_a_path_that_cannot_be_written_is_one_line_before_any_work(option, capsys) -> None:
    arguments, name = COMMANDS[option], option.partition(":")[0]
    takes_folder = arguments[0] in ("export", "compare")
    for path, words in (
        ("file/x.md", "lies below file, which is a file"),
        ("file/a/b/x.svg", "lies below file, which is a file"),
        (
            "file" if takes_folder else "folder",
            "is a file; name a folder" if takes_folder else "is a folder; name a file",
        ),
        ("x" * 300, "File name too long"),
    ):
        line = refused(capsys, [*arguments, name, path])
        assert f"{name} {path}: " in line and words in line, line
    assert sorted(path.name for path in Path().iterdir()) == ["file", "folder"]
    assert Path("file").read_text() == "kept"


def test_every_option_that_names_an_output_is_checked() -> None:
    """A new `--out` that is a plain path would be missed."""
    wanted = {"out", "plot", "svg", "png", "per_class", "json"}
    for parser in _parsers(build_parser()):
        for action in parser._actions:
            if action.dest in wanted and action.nargs != 0:
                assert action.type in (OutputFile, OutputFolder), (parser.prog, action.dest)


def _parsers(parser):
    yield parser
    for action in parser._actions:
        for inner in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            yield from _parsers(inner)


def test_neither_a_pipe_nor_an_input_nor_another_output_is_replaced(capsys) -> None:
    os.mkfifo("pipe")
    assert "is a device or a pipe" in refused(capsys, ["init", "digits", "--out", "pipe"])
    assert "what file names as well" in refused(capsys, ["import", "config", "file", "--out", "./file"])
    both = ["--per-class", "x.csv", "--json", "folder/../x.csv"]
    assert "what per-class names as well" in refused(capsys, ["evaluate", "w", "--data", "folder", *both])
    assert Path("file").read_text() == "kept" and Path("pipe").is_fifo()


def test_a_missing_parent_is_made_and_a_binary_file_is_kept() -> None:
    assert main(["init", "digits", "--out", "a/b/params.yaml"]) == 0
    Path("old.yaml").write_bytes(b"\x00\xff\xfe")
    assert main(["init", "digits", "--out", "old.yaml"]) == 0
    assert Path("old.yaml.bak").read_bytes() == b"\x00\xff\xfe"
    assert Path("old.yaml").read_bytes() == Path("a/b/params.yaml").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "w", "--data", "folder", "--workers", "-1"], "--workers -1: must be 0 or more"),
        (["evaluate", "w", "--data", "folder", "--batch-size", "0"], "--batch-size 0: must be 1 or more"),
        (["export", "TF-NAS-D", "--out", "o", "--tolerance", "nan"], "--tolerance nan: must be 0 or more"),
        (["export", "TF-NAS-D", "--out", "o", "--threads", "0"], "--threads 0: must be 1 or more"),
        (["profile", "--space", "tf-nas", "--out", "o", "--seed", "-1"], "--seed -1: must be 0 or more"),
        (["import", "latency-table", "file", "--out", "o", "--batch-size", "0"], "--batch-size 0: must be 1 or more"),
    ],
)
def test_a_number_out_of_range_is_one_line(arguments, words, capsys) -> None:
    assert words in refused(capsys, arguments)


@pytest.mark.parametrize("arguments", [["zoo", "list"], ["init", "--list"], ["--help"], ["zoo", "show", "TF-NAS-A"]])
def test_output_that_nobody_reads_is_no_error(arguments) -> None:
    code = "import sys; from tfnas.cli import main; sys.exit(main(sys.argv[1:]))"
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` has done, when it has seen enough
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert finished.stderr == "" and finished.returncode in (141, 0)  # 0: of --help, by argparse
