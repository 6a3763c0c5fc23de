"""The drawing shows every block of a network, the same way each time."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tfnas.jobs.errors import UserError
from tfnas.report.figures.drawing import architecture_figure, architecture_svg, describe, draw_architecture
from tfnas.report.figures.style import styled
from tfnas.space import zoo


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


@pytest.mark.parametrize("name", zoo.names())
def test_every_width_kernel_and_se_of_the_network_is_written(name: str, tmp_path: Path) -> None:
    architecture = zoo.load(name)
    draw_architecture(architecture, tmp_path / "drawing.svg")
    shown = texts((tmp_path / "drawing.svg").read_text())
    for block in architecture.blocks:
        assert str(block.expand_channels) in shown
    kernels = [f"{block.kernel}×{block.kernel}" for block in architecture.blocks]
    assert [text for text in shown if text in ("3×3", "5×5")] == kernels
    se = [str(block.se_channels) for block in architecture.blocks if block.se_channels]
    assert sum(text in set(se) for text in shown) >= len(se)
    assert name in shown and f"{len(architecture.blocks)} blocks" in shown


def test_bars_are_as_long_as_the_widths() -> None:
    architecture = zoo.load("TF-NAS-B")
    with styled():
        figure = architecture_figure(architecture)
    bars = [bar.get_width() for container in figure.axes[0].containers for bar in container]
    widths = [block.expand_channels for block in architecture.blocks]
    assert bars == pytest.approx([max(bars) * width / max(widths) for width in widths])


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_same_network_same_bytes(tmp_path: Path, suffix: str) -> None:
    for folder in ("first", "second"):
        draw_architecture(zoo.load("TF-NAS-A"), tmp_path / folder / f"a.{suffix}")
    first, second = ((tmp_path / folder / f"a.{suffix}").read_bytes() for folder in ("first", "second"))
    assert first == second


def test_no_label_lies_on_another() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for name in zoo.names():
        with styled():
            figure = architecture_figure(zoo.load(name))
            renderer = FigureCanvasAgg(figure).get_renderer()
            boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
        overlapping = [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i]) if a.overlaps(b)]
        assert not overlapping, name
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes), name


def test_a_name_is_text_and_no_markup(tmp_path: Path) -> None:
    architecture = dataclasses.replace(zoo.load("TF-NAS-A"), name='<b>"$x$&')
    svg = architecture_svg(architecture)
    assert "<b>" not in svg and '<b>"$x$&' in texts(svg)
    draw_architecture(architecture, tmp_path / "a.svg")
    assert '<b>"$x$&' in texts((tmp_path / "a.svg").read_text())


def test_ids_carry_the_prefix_and_colours_are_variables() -> None:
    svg = architecture_svg(zoo.load("TF-NAS-A"), name="drawing-A")
    ids = [node.attrib["id"] for node in ElementTree.fromstring(svg).iter() if "id" in node.attrib]
    assert ids and all(name.startswith("drawing-A-") for name in ids)
    assert "var(--blue)" in svg and "#2c69b0" not in svg


def test_words_for_those_who_cannot_see_it() -> None:
    words = describe(zoo.load("TF-NAS-A"))
    assert words == "TF-NAS-A: 19 blocks, 15 with kernel 3, 4 with kernel 5, 11 with squeeze-and-excitation"


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.pdf: .*\.svg or \.png"):
        draw_architecture(zoo.load("TF-NAS-A"), tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())
