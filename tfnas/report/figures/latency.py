"""Figures of the commands that measure: latency against width, and networks side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.latency import LatencyTable, OperationKey
from tfnas.latency.baselines import Compared
from tfnas.report.figures.drawing import kernel_color
from tfnas.report.figures.style import COLORS, SMALL, new_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_A_ROW = 3
SE_LINES = ("-", "--", ":")  # without SE, with the least, with more
ROW_INCHES = 0.2

Shape = tuple[int, int, int, int]  # resolution, input and output channels, stride


def draw_latency_curves(table: LatencyTable, path: str | Path) -> None:
    """Write the curves of a table as SVG or PNG.

    Raises:
        UserError: another suffix.
    """
    write_figure(lambda: latency_curves_figure(table), path)


def draw_comparison(rows: Sequence[Compared], title: str, path: str | Path) -> None:
    """Write the comparison as SVG or PNG.

    Raises:
        UserError: another suffix.
    """
    write_figure(lambda: comparison_figure(rows, title), path)


def latency_curves_figure(table: LatencyTable) -> Figure:
    """One panel per place in the network (input, output, stride): latency of each operation against its width.

    Color shows the kernel, the line style SE, dots the measured widths (omitted where there are more than 40).
    """
    panels: dict[Shape, list[OperationKey]] = {}
    for key in sorted(table.curves, key=lambda key: (-key.resolution, key.in_channels, key.out_channels, key)):
        panels.setdefault((key.resolution, key.in_channels, key.out_channels, key.stride), []).append(key)
    rows = math.ceil(len(panels) / PANELS_A_ROW)
    figure = new_figure(0.75 + 1.75 * rows, 8.8)
    height = figure.get_size_inches()[1]
    grid = figure.subplots(rows, min(PANELS_A_ROW, len(panels)), squeeze=False)
    axes = list(grid.flat)
    for place, (shape, keys) in zip(axes, panels.items(), strict=False):
        _curves_panel(place, shape, keys, table)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    figure.subplots_adjust(left=0.05, right=0.99, top=1 - 0.72 / height, bottom=0.4 / height, hspace=0.55, wspace=0.22)
    title = f"{table.space} on {table.device}, batch {table.batch_size}, {table.resolution} x {table.resolution}"
    figure.text(0.01, 1 - 0.14 / height, title, weight="bold", va="center")
    text = "latency in ms against expansion channels; solid: without SE, dashed and dotted: with SE"
    figure.text(0.01, 1 - 0.32 / height, text, color=COLORS["muted"], va="center", size=SMALL)
    _kernel_legend(figure, sorted({key.kernel for key in table.curves}), 1 - 0.32 / height)
    return figure


def _curves_panel(axes: Axes, shape: Shape, keys: Sequence[OperationKey], table: LatencyTable) -> None:
    resolution, in_channels, out_channels, stride = shape
    se_sizes = sorted({key.se_channels for key in keys if key.se_channels})
    for key in keys:
        curve = table.curves[key]
        line = SE_LINES[0] if not key.se_channels else SE_LINES[1 + min(se_sizes.index(key.se_channels), 1)]
        color = kernel_color(key.kernel)
        axes.plot(curve.widths, curve.latencies_ms, line, color=color, linewidth=1.1)
        if len(curve.widths) <= 40:
            axes.plot(curve.widths, curve.latencies_ms, "o", color=color, markersize=2.2, markeredgewidth=0)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=SMALL)
    title = f"{resolution} x {resolution}, {in_channels} to {out_channels}, stride {stride}, {keys[0].act}"
    axes.set_title(title, size=SMALL + 0.5, loc="left", pad=4)


def _kernel_legend(figure: Figure, kernels: Sequence[int], y: float) -> None:
    for place, kernel in enumerate(reversed(kernels)):
        color = kernel_color(kernel)
        figure.text(0.99 - 0.08 * place, y, f"kernel {kernel}", color=color, va="center", ha="right", weight="bold")


def comparison_figure(rows: Sequence[Compared], title: str) -> Figure:
    """One row per network, fastest first: latency (diamond: table), multiply-adds, parameters, published top-1."""
    figure = new_figure(0.85 + ROW_INCHES * len(rows), 8.8)
    height = figure.get_size_inches()[1]
    panels = figure.subplots(1, 4, sharey=True, width_ratios=(3, 2, 2, 2))
    colors = [COLORS["blue" if row.baseline.architecture else "orange"] for row in rows]
    places = range(len(rows))
    slowest_ms = max(row.timing.median_ms for row in rows)
    columns: tuple[tuple[str, Callable[[Compared], float], str], ...] = (
        ("latency on this device, ms", lambda row: row.timing.median_ms, "{:.1f}" if slowest_ms >= 100 else "{:.2f}"),
        ("multiply-adds, M", lambda row: row.baseline.macs / 1e6, "{:.0f}"),
        ("parameters, M", lambda row: row.baseline.params / 1e6, "{:.1f}"),
        ("published top-1, %", lambda row: row.baseline.top1, "{:.1f}"),
    )
    for axes, (name, number, text) in zip(panels, columns, strict=True):
        values = [number(row) for row in rows]
        low = 0.0
        if "top-1" in name:  # dots, since this axis does not begin at 0
            low = math.floor(min(values) - 4)
            axes.scatter(values, places, s=16, color=colors, linewidth=0)
        else:
            axes.barh(places, values, color=colors, height=0.62, linewidth=0)
        for place, value in zip(places, values, strict=True):
            axes.annotate(text.format(value), (value, place), (5, 0), textcoords="offset points", va="center", size=6.8)
        axes.set_xlim(low, low + 1.22 * (max(values) - low))
        axes.set_title(name, size=SMALL + 0.5, loc="left", pad=4)
        axes.grid(axis="y", visible=False)
        axes.tick_params(labelsize=SMALL)
        axes.spines["bottom"].set_visible(False)
    _table_marks(panels[0], rows)
    panels[0].set_yticks(places, [row.baseline.name for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.subplots_adjust(left=0.145, right=0.99, top=1 - 0.62 / height, bottom=0.23 / height, wspace=0.08)
    figure.text(0.01, 1 - 0.14 / height, title, weight="bold", va="center")
    _family_legend(figure, 1 - 0.32 / height, has_table=any(row.table_ms is not None for row in rows))
    return figure


def _table_marks(axes: Axes, rows: Sequence[Compared]) -> None:
    for place, row in enumerate(rows):
        if row.table_ms is not None:
            axes.plot(row.table_ms, place, "D", markersize=3.2, color="white", markeredgecolor=COLORS["ink"])


def _family_legend(figure: Figure, y: float, *, has_table: bool) -> None:
    figure.text(0.01, y, "TF-NAS paper", color=COLORS["blue"], va="center", weight="bold")
    figure.text(0.125, y, "torchvision", color=COLORS["orange"], va="center", weight="bold")
    if has_table:
        figure.text(0.225, y, "diamond: by the latency table", color=COLORS["muted"], va="center", size=SMALL)
