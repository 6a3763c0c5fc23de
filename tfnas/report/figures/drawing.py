"""The drawing of a network, one row per block; and what all charts share: panel, colors, labels at line ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfnas.jobs.artifacts import shorten
from tfnas.report.figures.style import COLORS, SERIES, SMALL, inline_svg, new_figure, write_figure
from tfnas.report.inputs import TargetResult

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
LONGEST_NAME = 26  # characters, next to the number of blocks


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
    """One row per block from input (top) to output: a bar as long as the expansion channels, colored by kernel.

    The shading alternates with the stage; a triangle marks stride 2, a dot SE with its channels. Next to the width is
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
    """Stem or head: text only, since their widths are not expansions."""
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
    axes.barh(middle, length, left=BAR_X, height=0.66, color=kernel_color(block.kernel), linewidth=0)
    width = str(block.expand_channels)
    ratio = f"{block.expand_channels / block.in_channels:.1f}".removesuffix(".0")
    x = BAR_X + length + 4
    axes.text(x, middle, width, va="center")
    axes.text(x + 5.7 * len(width) + 3, middle, f"×{ratio}", va="center", size=SMALL, color=COLORS["muted"])


def _stride_mark(axes: Axes, y: float, stride: int) -> None:
    if stride == 2:
        axes.plot(STRIDE_X, y + 0.5, "v", color=COLORS["ink"], markersize=4, markeredgewidth=0)


def kernel_color(kernel: int) -> str:
    return COLORS[KERNEL_COLORS.get(kernel, OTHER_KERNEL)]


def _legend(axes: Axes, y: float, architecture: Architecture) -> None:
    entries = [("s", kernel_color(k), f"kernel {k}") for k in sorted({b.kernel for b in architecture.blocks})]
    entries.append(("v", COLORS["ink"], "stride 2"))
    if any(block.se_channels for block in architecture.blocks):
        entries.append(("o", COLORS["ink"], "SE, with its channels"))
    x = STAGE_X + 3
    for marker, color, text in entries:
        axes.plot(x, y, marker, color=color, markersize=6 if marker == "s" else 4, markeredgewidth=0)
        axes.text(x + 7, y, text, va="center", size=SMALL, color=COLORS["muted"])
        x += 22 + 4.6 * len(text)


MARKED_EPOCHS = 40  # lines with no more epochs mark each one
GAP = 10.0  # points between two labels, at least
LEFT, BOTTOM, TOP = 30.0, 30.0, 30.0  # margins in points


class EndLabel(NamedTuple):
    """Text at the right end of a line that ends at `y` (in data coordinates), or of the point at `x` and `y`."""

    y: float
    text: str
    color: str
    x: float | None = None  # of a point, from which a line leads to the text


def panel(
    title: str, unit: str, x_label: str, *, height: float = 2.55, left: float = LEFT, right: float = 66.0
) -> tuple[Figure, Axes]:
    """A figure with one pair of axes: title and, below it, the unit of y; the name of x under the axis.

    Args:
        height: of the figure, in inches.
        left, right: margins in points, for labels next to the axes.
    """
    figure = new_figure(height)
    width_points, height_points = (72.0 * size for size in figure.get_size_inches())
    box = (
        left / width_points,
        BOTTOM / height_points,
        1.0 - (left + right) / width_points,
        1.0 - (BOTTOM + TOP) / height_points,
    )
    axes = figure.add_axes(box)
    figure.text(0.0, 1.0 - 8.0 / height_points, shorten(title, 44), weight="bold", va="center")
    figure.text(0.0, 1.0 - 20.0 / height_points, unit, color=COLORS["muted"], va="center", size=SMALL)
    axes.set_xlabel(x_label, size=SMALL, loc="right", labelpad=2)
    return figure, axes


def name_label(name: str, y: float, color: str, write: Callable[[float], str] = "{:.1f}".format) -> EndLabel:
    """The label of a target's line: its name and the value at its end."""
    return EndLabel(y, f"{shorten(name, 9)} {write(y)}", color)


def target_colors(targets: Sequence[TargetResult]) -> dict[str, str]:
    """Key in `COLORS` of each target, the same in every figure."""
    return {target.name: SERIES[i % len(SERIES)] for i, target in enumerate(targets)}


def label_ends(axes: Axes, labels: Sequence[EndLabel]) -> None:
    """Write labels to the right of the axes, each near its y and at least `GAP` from the next. Call it last."""
    height = 72.0 * axes.bbox.height / axes.figure.dpi  # points
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda label: label.y)
    wanted = [height * (label.y - low) / (high - low) for label in ordered]
    for label, place in zip(ordered, spread(wanted, GAP, height), strict=True):
        if label.x is not None:
            leader = {"arrowstyle": "-", "color": COLORS["neutral"], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axes.annotate(
                "", (label.x, label.y), (1.0, place / height), textcoords="axes fraction", annotation_clip=False,
                arrowprops=leader, zorder=1,
            )  # fmt: skip
        axes.annotate(
            label.text,
            (1.0, place / height),
            (5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            color=label.color,
            size=SMALL,
            annotation_clip=False,
        )


def spread(wanted: Sequence[float], gap: float, top: float) -> list[float]:
    """Places near the ascending `wanted` ones, in order, `gap` apart or more, between 0 and `top` if there is room."""
    raised = _raise(wanted, gap)
    lowered = _lower(wanted, gap)
    places = [(up + down) / 2 for up, down in zip(raised, lowered, strict=True)]  # both keep the gap, so this does
    places = _raise([max(place, 0.0) for place in places], gap)
    return _lower([min(place, top) for place in places], gap)


def _raise(places: Sequence[float], gap: float) -> list[float]:
    raised: list[float] = []
    for place in places:
        raised.append(max(place, raised[-1] + gap) if raised else place)
    return raised


def _lower(places: Sequence[float], gap: float) -> list[float]:
    return [-place for place in reversed(_raise([-place for place in reversed(places)], gap))]


def room_around_points(axes: Axes) -> None:
    """Margins, and a range of at least one percent point, so that noise does not look like a difference."""
    axes.margins(x=0.12, y=0.25)
    low, high = axes.get_ylim()
    if high - low < 1.0:
        middle = (low + high) / 2
        axes.set_ylim(middle - 0.5, middle + 0.5)


def epoch_axis(axes: Axes, epochs: Sequence[int]) -> None:
    """Whole epochs on x, from the first to the last."""
    from matplotlib.ticker import MaxNLocator

    first, last = min(epochs), max(epochs)
    margin = 0.02 * max(last - first, 1)
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.grid(axis="x", visible=False)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Named rows 0, 1, ... from the top, without grid lines."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
