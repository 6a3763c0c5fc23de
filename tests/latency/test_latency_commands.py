"""`tfnas profile` and `tfnas latency`: a real tiny table, its breakdown, and clear refusals."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import numpy as np
import pytest

from tfnas.cli import main
from tfnas.latency import LatencyTable, reachable_range_ms
from tfnas.latency.validation import random_architecture
from tfnas.space import load_space


@pytest.fixture(scope="module")
def table_file(space_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "table.json"
    small = ["--minutes", "0.01", "--repeats", "2", "--warmup-runs", "0", "--validation-networks", "0"]
    small += ["--on-busy", "warn"]
    assert main(["profile", "--space", str(space_file), "--num-classes", "3", "--out", str(path), *small]) == 0
    return path


def test_profile_writes_a_table_and_says_what_can_be_reached(space_file, space, tmp_path, capsys) -> None:
    path = tmp_path / "t.json"
    options = [
        "--space",
        space_file,
        "--resolution",
        24,
        "--batch-size",
        2,
        "--minutes",
        0.01,
        "--on-busy",
        "warn",
        "--repeats",
        2,
    ]
    options += ["--warmup-runs", 0, "--validation-networks", 2, "--num-classes", 3, "--out", path]
    assert main(["profile", *map(str, options)]) == 0
    table, text = LatencyTable.load(path), capsys.readouterr().out
    table.check_fits(space, 24, source="test")
    assert (table.batch_size, table.space) == (2, "tiny")
    low, high = reachable_range_ms(space, table)
    assert f"reachable are {low:.3f} to {high:.3f} ms" in text and "2 random networks" in text
    assert f"tfnas latency ARCHITECTURE --table {path}" in text


def test_latency_prints_every_layer_with_its_share_and_the_total(table_file, space, tmp_path, capsys) -> None:
    table, architecture = LatencyTable.load(table_file), random_architecture(space, "mine", np.random.default_rng(4))
    architecture.save(tmp_path / "a.json")
    assert main(["latency", str(tmp_path / "a.json"), "--table", str(table_file)]) == 0
    text = capsys.readouterr().out
    rows = [re.split(r"  +", line.strip()) for line in text.partition("---\n")[2].splitlines()]
    base, *layers, total = rows
    total_ms = table.latency_ms(architecture)
    assert text.startswith("mine on ") and "16x16, batch 1" in text
    assert base[3] == f"{table.base_ms:.3f}" and total[0] == "total" and total[1] == f"{total_ms:.3f}"
    for row, (block, ms) in zip(layers, table.blocks_ms(architecture), strict=True):
        assert row[0] == str(block.stage) and row[2:] == [
            str(block.expand_channels),
            f"{ms:.3f}",
            f"{100 * ms / total_ms:.1f} %",
        ]
        assert row[1].startswith(f"k{block.kernel} s{block.stride} {block.in_channels}->{block.out_channels}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch-size", "0"], ("--batch-size 0", "greater than or equal to 1")),
        (["--minutes", "0"], ("--minutes 0", "greater than 0")),
        (["--validation-networks", "-1"], ("--validation-networks -1", "greater than or equal to 0")),
        (["--resolution", "4"], ("--resolution 4", "8 or more")),
        (["--device", "tpu"], ("--device tpu", "write cpu, cuda or cuda:N")),
        (["--space", "tfnas"], ("'tfnas'", "did you mean 'tf-nas'")),
        (["--seed", "-1"], ("--seed -1",)),
    ],
)
def test_profile_refuses_in_one_line_before_measuring(space_file, tmp_path, capsys, options, words) -> None:
    path = tmp_path / "t.json"
    assert main(["profile", "--space", str(space_file), "--out", str(path), *options]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and all(word in line for word in words), line
    assert not path.exists()


def test_latency_refuses_networks_of_another_space(table_file, capsys) -> None:
    assert main(["latency", "TF-NAS-A", "--table", str(table_file)]) == 2
    line = capsys.readouterr().err.strip()
    assert "has no operation" in line and "16x16" in line and "\n" not in line
    assert main(["latency", "TF-NAS-X", "--table", str(table_file)]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["profile", "latency"])
def test_help_is_quick_and_names_the_options(command) -> None:
    code = f"""
import sys
import time
from tfnas.cli import main
try:
    main(["{command}", "--help"])
finally:
    assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    named = {
        "profile": ("--space", "--resolution", "--batch-size", "--threads", "--out"),
        "latency": ("ARCH", "--table"),
    }
    assert all(name in result.stdout for name in named[command])


def test_killed_profile_goes_on_where_it_was(space_file, tmp_path) -> None:
    """SIGKILL in the middle: the same command ends well, and keeps what the first one had measured."""
    path = tmp_path / "t.json"
    command = [sys.executable, "-c", "import sys; from tfnas.cli import main; sys.exit(main())", "profile"]
    command += [
        "--space",
        str(space_file),
        "--out",
        str(path),
        "--resolution",
        "32",
        "--minutes",
        "0.05",
        "--repeats",
        "2",
    ]
    command += ["--on-busy", "warn", "--validation-networks", "4"]
    killed, kept = 0, tmp_path / "t.json.partial"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and killed < 12:
        killed = len(kept.read_text().splitlines()) if kept.exists() else 0
        time.sleep(0.02)
    process.kill()
    process.wait()
    lines = kept.read_text().splitlines()
    assert not path.exists() and len(lines) >= 12
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    table = LatencyTable.load(path)
    assert table.details["tours"] >= sum("stem" in line for line in lines) > 5 and not kept.exists()
    table.check_fits(load_space(space_file), 32, source="test")
