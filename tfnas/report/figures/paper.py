"""Figures that compare with the paper: its networks on this device, and its own trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tfnas.jobs.artifacts import shorten
from tfnas.report.comparison import DeviceRow
from tfnas.report.figures.drawing import name_rows, panel
from tfnas.report.figures.style import COLORS, SMALL, add_hover
from tfnas.report.inputs import Row
from tfnas.report.paper_tables import GPU, TABLE_2, TABLE_8, Cited

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = ("TF-NAS-A", "TF-NAS-B", "TF-NAS-C", "TF-NAS-D")  # the others' names appear on hover


class Found(NamedTuple):
    """A network of this run in a figure of the paper's task."""

    name: str
    x: float
    top1_percent: float


def on_device_figure(rows: Sequence[DeviceRow]) -> Figure:
    """One bar per network, fastest first: latency by the run's table; this run's in color."""
    title, unit = "On this device", "latency by the run's table, ms"
    height = 0.95 + 0.2 * len(rows)
    figure, axes = panel(title, unit, "ms", height=height, left=96.0, right=44.0)
    for place, row in enumerate(rows):
        color = COLORS["blue" if row.ours else "neutral"]
        axes.barh(place, row.table_ms, height=0.62, color=color, linewidth=0)
        axes.annotate(
            f"{row.table_ms:.2f}", (row.table_ms, place), (4, 0), textcoords="offset points", va="center", size=SMALL,
            color=COLORS["ink" if row.ours else "muted"],
        )  # fmt: skip
    add_hover(axes, [row.table_ms / 2 for row in rows], range(len(rows)), [_told_on_device(row) for row in rows])
    name_rows(axes, [shorten(row.name, 19) for row in rows])
    axes.tick_params(axis="y", labelsize=SMALL)
    return figure


def _told_on_device(row: DeviceRow) -> str:
    lines = [row.name, f"{row.table_ms:.3f} ms here", f"{row.macs / 1e6:.1f} M multiply-adds at 224 × 224"]
    if row.published_top1_percent is not None:
        lines.append(f"{row.published_top1_percent} % on ImageNet (paper)")
    return "\n".join(lines)


def paper_latency_figure() -> Figure:
    """The paper's Table 2: top-1 on ImageNet against its GPU's latency."""
    figure, axes = panel("The paper’s trade-off", f"top-1 on ImageNet, %; {GPU}", "latency, ms", right=12.0)
    texts = [f"{row.latency_ms:.2f} ms" for row in TABLE_2]
    _cited_points(axes, TABLE_2, [row.latency_ms for row in TABLE_2], texts)
    return figure


def paper_macs_figure(found: Sequence[Found]) -> Figure:
    """Top-1 on ImageNet against multiply-adds, of Tables 2 and 8, and of this run where it is on ImageNet (in M)."""
    rows = list({row.name: row for row in (*TABLE_8, *TABLE_2)}.values())
    figure, axes = panel("Without a device", "top-1 on ImageNet, %", "multiply-adds, M", right=12.0)
    _cited_points(axes, rows, [row.macs_millions for row in rows], [f"{row.macs_millions} M" for row in rows])
    for network in found:
        axes.plot(network.x, network.top1_percent, "o", color=COLORS["orange"], markersize=7, markeredgewidth=0)
    texts = [f"{n.name} (this run)\n{n.top1_percent:.2f} %\n{n.x:.1f} M multiply-adds" for n in found]
    add_hover(axes, [n.x for n in found], [n.top1_percent for n in found], texts)
    return figure


def compared_figure(rows: Sequence[Row]) -> Figure:
    """Networks measured by `tfnas compare`: published top-1 on ImageNet against latency here."""
    figure, axes = panel(
        "Published networks here", "published top-1 on ImageNet, %", "latency measured, ms", right=12.0
    )
    for row in rows:
        of_the_paper = row["network"].startswith("TF-NAS")
        color, size = (COLORS["blue"], 6) if of_the_paper else (COLORS["neutral"], 5)
        axes.plot(row["latency_ms"], row["published_top1"], "o", color=color, markersize=size, markeredgewidth=0)
        if row["network"] in NAMED:
            axes.annotate(
                row["network"], (row["latency_ms"], row["published_top1"]), (0, 7), textcoords="offset points",
                ha="center", size=SMALL, color=COLORS["blue"],
            )  # fmt: skip
    texts = [
        f"{row['network']}\n{row['published_top1']:.1f} % ({row['source']})\n{row['latency_ms']:.2f} ms here"
        for row in rows
    ]
    add_hover(axes, [row["latency_ms"] for row in rows], [row["published_top1"] for row in rows], texts)
    axes.margins(x=0.1, y=0.14)
    return figure


def _cited_points(axes: Axes, rows: Sequence[Cited], xs: Sequence[float], texts: Sequence[str]) -> None:
    for row, x in zip(rows, xs, strict=True):
        color = COLORS["blue" if row.is_tf_nas else "neutral"]
        axes.plot(x, row.top1_percent, "o", color=color, markersize=6 if row.is_tf_nas else 4.5, markeredgewidth=0)
        if row.name in NAMED:
            axes.annotate(
                row.name, (x, row.top1_percent), (0, 7), textcoords="offset points", ha="center", size=SMALL,
                color=COLORS["blue"],
            )  # fmt: skip
    told = [f"{row.name} (paper)\n{row.top1_percent} %\n{text}" for row, text in zip(rows, texts, strict=True)]
    add_hover(axes, xs, [row.top1_percent for row in rows], told)
    axes.margins(x=0.1, y=0.14)
