"""Drawing of a network: one row a block, with kernel, width and SE."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.report.style import COLORS, SMALL, inline_svg, new_figure, write_figure
from tfnas.runtime.artifacts import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tfnas.space import Architecture, Block

KERNEL_COLORS = {1: "neutral", 3: "blue", 5: "orange", 7: "green"}
OTHER_KERNEL = "purple"

# Columns and rows, in points (1/72 inch)
ROW = 15.0
STAGE_X, CHANNELS_X, STRIDE_X, KERNEL_X, BAR_X, SE_X, RIGHT = 6.0, 24.0, 80.0, 88.0, 116.0, 288.0, 317.0
BAR_LENGTH = 108.0
TITLE_ROWS, LEGEND_ROWS = 2.4, 1.6
LONGEST_NAME = 26  # characters beside the number of blocks


def draw_architecture(architecture: Architecture, path: str | Path) -> None:
    """Write the drawing of an architecture, as SVG or PNG by the suffix of `path`.

    Raises:
        UserError: another suffix.
    """
    write_figure(lambda: architecture_figure(architecture), path)


def architecture_svg(architecture: Architecture, name: str = "architecture") -> str:
    """The drawing as an `<svg>` element for a page; `name` prefixes the ids in it."""
    return inline_svg(lambda: architecture_figure(architecture), name, describe(architecture))


def describe(architecture: Architecture) -> str:
    """The network in words: name, depth, kernels, SE."""
    blocks = architecture.blocks
    kernels = [f"{sum(b.kernel == k for b in blocks)} with kernel {k}" for k in sorted({b.kernel for b in blocks})]
    with_se = sum(block.se_channels > 0 for block in blocks)
    return f"{architecture.name}: {len(blocks)} blocks, {', '.join(kernels)}, {with_se} with squeeze-and-excitation"


def architecture_figure(architecture: Architecture) -> Figure:
    """One row a block from input (top) to output: a bar as long as the expansion channels, coloured by kernel.

    The shading changes with the stage; a triangle marks stride 2, a disc SE with its channels. Beside the width stands
    its ratio to the input channels, e of Sec. 3.1.
    """
    rows = TITLE_ROWS + 1 + len(architecture.blocks) + 1 + LEGEND_ROWS  # stem, blocks, head
    figure = new_figure(rows * ROW / 72)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set(xlim=(0, RIGHT), ylim=(rows, 0))  # rows count downwards
    _header(axes, architecture)
    y = TITLE_ROWS
    stem, head = architecture.stem, architecture.head
    _part(axes, y, f"{stem.in_channels} → {stem.out_channels}", f"{stem.kernel}×{stem.kernel} convolution", stem.stride)
    y += 1
    longest = max(block.expand_channels for block in architecture.blocks)
    for i, (stage, group) in enumerate(groupby(architecture.blocks, key=lambda block: block.stage)):
        blocks = list(group)
        if i % 2 == 0:
            axes.axhspan(y, y + len(blocks), color=COLORS["band"], linewidth=0)
        axes.text(STAGE_X, y + 0.5, str(stage), va="center", weight="bold")
        for offset, block in enumerate(blocks):
            _block(axes, y + offset, block, longest)
        y += len(blocks)
    _part(axes, y, f"{architecture.blocks[-1].out_channels} → {head.out_channels}", "1×1 convolution, pooling", 1)
    _legend(axes, y + 1 + LEGEND_ROWS / 2, architecture)
    return figure


def _header(axes: Axes, architecture: Architecture) -> None:
    axes.text(STAGE_X, 0.7, shorten(architecture.name, LONGEST_NAME), va="center", size=10, weight="bold")
    axes.text(RIGHT - 6, 0.7, f"{len(architecture.blocks)} blocks", va="center", ha="right", color=COLORS["muted"])
    small: dict[str, Any] = {"va": "center", "color": COLORS["muted"], "size": SMALL}
    for x, title in ((STAGE_X, "stage, channels"), (KERNEL_X, "kernel"), (BAR_X, "width (× input channels)")):
        axes.text(x, 1.85, title, **small)
    if any(block.se_channels for block in architecture.blocks):
        axes.text(RIGHT - 6, 1.85, "SE", ha="right", **small)


def _part(axes: Axes, y: float, channels: str, what: str, stride: int) -> None:
    """Stem or head: text only, since their widths are no expansions."""
    axes.text(CHANNELS_X, y + 0.5, channels, va="center", color=COLORS["muted"], size=SMALL)
    _stride_mark(axes, y, stride)
    axes.text(KERNEL_X, y + 0.5, what, va="center", color=COLORS["muted"])


def _block(axes: Axes, y: float, block: Block, longest: int) -> None:
    middle = y + 0.5
    channels = f"{block.in_channels} → {block.out_channels}"
    axes.text(CHANNELS_X, middle, channels, va="center", color=COLORS["muted"], size=SMALL)
    _stride_mark(axes, y, block.stride)
    axes.text(KERNEL_X, middle, f"{block.kernel}×{block.kernel}", va="center")
    _bar(axes, middle, block, longest)
    if block.se_channels:
        axes.plot(SE_X, middle, "o", color=COLORS["ink"], markersize=4, markeredgewidth=0)
        axes.text(RIGHT - 6, middle, str(block.se_channels), va="center", ha="right")


def _bar(axes: Axes, middle: float, block: Block, longest: int) -> None:
    length = BAR_LENGTH * block.expand_channels / longest
    axes.barh(middle, length, left=BAR_X, height=0.66, color=_kernel_color(block.kernel), linewidth=0)
    width = str(block.expand_channels)
    ratio = f"{block.expand_channels / block.in_channels:.1f}".removesuffix(".0")
    x = BAR_X + length + 4
    axes.text(x, middle, width, va="center")
    axes.text(x + 5.7 * len(width) + 3, middle, f"×{ratio}", va="center", size=SMALL, color=COLORS["muted"])


def _stride_mark(axes: Axes, y: float, stride: int) -> None:
    if stride == 2:
        axes.plot(STRIDE_X, y + 0.5, "v", color=COLORS["ink"], markersize=4, markeredgewidth=0)


def _kernel_color(kernel: int) -> str:
    return COLORS[KERNEL_COLORS.get(kernel, OTHER_KERNEL)]


def _legend(axes: Axes, y: float, architecture: Architecture) -> None:
    entries = [("s", _kernel_color(k), f"kernel {k}") for k in sorted({b.kernel for b in architecture.blocks})]
    entries.append(("v", COLORS["ink"], "stride 2"))
    if any(block.se_channels for block in architecture.blocks):
        entries.append(("o", COLORS["ink"], "SE, with its channels"))
    x = STAGE_X + 3
    for marker, color, text in entries:
        axes.plot(x, y, marker, color=color, markersize=6 if marker == "s" else 4, markeredgewidth=0)
        axes.text(x + 7, y, text, va="center", size=SMALL, color=COLORS["muted"])
        x += 22 + 4.6 * len(text)
