"""`tfnas zoo`: the list, the table of a network against the paper's columns, and drawings."""

from __future__ import annotations

import dataclasses
import re

import pytest

from tfnas.cli import main
from tfnas.space import count_macs, count_params, load_space, zoo
from tfnas.space.membership import assemble


def output_of(capsys, *arguments) -> str:
    assert main(["zoo", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def cells(text):
    """The cells of each row below the rule."""
    _, _, body = text.partition("---\n")
    return [re.split(r"  +", line.strip()) for line in body.splitlines() if "  " in line]


def test_list_has_the_twelve_in_order_with_their_numbers(capsys) -> None:
    rows = cells(output_of(capsys, "list"))
    assert [row[0] for row in rows] == zoo.names()
    for name, macs, params, top1, table, space in rows:
        architecture = zoo.load(name)
        assert macs == f"{count_macs(architecture) / 1e6:.1f} M"
        assert params == f"{count_params(architecture) / 1e6:.1f} M"
        assert (top1, int(table)) == (f"{zoo.published(name).top1} %", zoo.published(name).table)
        assert space == architecture.space


@pytest.mark.parametrize("name", zoo.names())
def test_show_prints_every_row_and_the_totals(capsys, name) -> None:
    architecture, text = zoo.load(name), output_of(capsys, "show", name)
    rows = cells(text)
    stem, *blocks, head, pool, classifier = rows
    assert stem[:3] == ["1", "224x224x3", "Conv k3"]
    for row, (size, block) in zip(blocks, architecture.block_resolutions(224), strict=True):
        assert row == [
            str(block.stage),
            f"{size}x{size}x{block.in_channels}",
            f"MBInvRes k{block.kernel}",
            *map(str, (block.in_channels, block.expand_channels, block.se_channels, block.out_channels)),
            block.act,
            str(block.stride),
        ]
    assert head[:3] == ["9", "7x7x320", "Conv k1"]
    assert pool[:3] == ["10", "7x7x1280", "AvgPool"]
    assert classifier[:3] == ["11", "1x1x1280", "Fc"] and classifier[6] == "1000"
    macs, params = count_macs(architecture) / 1e6, count_params(architecture) / 1e6
    assert f"{macs:.1f} M multiply-adds, {params:.1f} M parameters" in text


def test_show_at_another_resolution_and_number_of_classes(capsys) -> None:
    text = output_of(capsys, "show", "TF-NAS-A", "--resolution", 64, "--classes", 10)
    macs, params = count_macs(zoo.load("TF-NAS-A"), 64, 10), count_params(zoo.load("TF-NAS-A"), 10)
    assert f"{macs / 1e6:.1f} M multiply-adds, {params / 1e6:.1f} M parameters (64x64 input, 10 classes)" in text
    assert cells(text)[-3][1] == "2x2x320"


def test_show_takes_an_architecture_of_your_own(capsys, tmp_path) -> None:
    space = load_space("tf-nas")
    choices = {stage.stage: [(space.candidates[0], 3 * stage.in_channels)] for stage in space.searchable_stages}
    path = tmp_path / "architecture.json"
    assemble(space, "mine", choices).save(path)
    text = output_of(capsys, "show", path)
    assert text.startswith("mine (space tf-nas)")
    assert len(cells(text)) == 7 + 4


def test_drawings(capsys, tmp_path) -> None:
    svg, png = tmp_path / "a.svg", tmp_path / "a.png"
    text = output_of(capsys, "show", "TF-NAS-D", "--svg", svg, "--png", png)
    assert f"{svg}: drawn" in text and f"{png}: drawn" in text
    assert "<svg" in svg.read_text() and png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["TF-NAS-E"], "unknown network 'TF-NAS-E'; did you mean"),
        (["missing.json"], "missing.json: cannot be read"),
        (["TF-NAS-A", "--svg", "a.png"], "--svg a.png: the name must end in .svg"),
        (["TF-NAS-A", "--png", "a"], "--png a: the name must end in .png"),
        (["TF-NAS-A", "--resolution", "0"], "--resolution and --classes must be 1 or more"),
        (["TF-NAS-A", "--classes", "-1"], "--resolution and --classes must be 1 or more"),
    ],
)
def test_a_mistake_is_one_line(capsys, monkeypatch, tmp_path, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["zoo", "show", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert words in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_broken_architecture_is_one_line(capsys, tmp_path) -> None:
    architecture = zoo.load("TF-NAS-D")
    dataclasses.replace(architecture, blocks=architecture.blocks[1:]).save(tmp_path / "a.json")
    assert main(["zoo", "show", str(tmp_path / "a.json")]) == 2
    assert "blocks.0.in_channels: is 16, the part before it gives 32" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["zoo"], ["zoo", "show"], ["zoo", "draw"]])
def test_what_argparse_refuses(capsys, arguments) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
