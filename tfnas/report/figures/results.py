"""Figures of inputs and outcomes: classes, latency table, accuracy against latency, derived operations (Fig. 2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfnas.jobs.artifacts import shorten
from tfnas.latency import LatencyTable
from tfnas.latency.validation import VALIDATED, Validated, hit_rates_text, validation_metrics
from tfnas.report.figures.drawing import (
    EndLabel,
    label_ends,
    name_label,
    name_rows,
    panel,
    room_around_points,
    target_colors,
)
from tfnas.report.figures.search import LAYER, operation_color
from tfnas.report.figures.style import COLORS, SMALL, add_hover
from tfnas.report.inputs import ClassResult, Row, TargetResult
from tfnas.space import zoo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tfnas.report.comparison import DeviceRow
    from tfnas.space import Architecture

PAPER_LAYERS, OF_LAYERS = (12, 17), 18  # the two layers of Fig. 2, of Table 1's
NAMED_CLASSES = 30  # that fit with their names


def class_figure(classes: Sequence[ClassResult]) -> Figure:
    """Top-1 accuracy of every class, best first, with those of the subset marked (Appendix B)."""
    return _named_classes(classes) if len(classes) <= NAMED_CLASSES else _ranked_classes(classes)


def _named_classes(classes: Sequence[ClassResult]) -> Figure:
    names = [shorten(result.name, 17) for result in classes]
    left_points = 10.0 + 5.6 * max(map(len, names))
    height = 0.95 + 0.2 * len(classes)
    figure, axes = panel("Classes", "top-1 accuracy, %", "%", height=height, left=left_points, right=80.0)
    lowest = min(result.top1_percent for result in classes)
    left = max(0.0, lowest - max(2.0, 0.25 * (100.0 - lowest)))
    for i, result in enumerate(classes):
        chosen = result.group is not None
        axes.hlines(i, left, result.top1_percent, color=COLORS["grid"], linewidth=1.0)
        _class_mark(axes, result.top1_percent, i, chosen)
        text = f"{result.top1_percent:.1f}" + (f"  group {result.group}" if chosen else "")
        axes.annotate(
            text, (1.0, i), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            size=SMALL, color=COLORS["ink" if chosen else "muted"], annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(left, 100.0 + 0.02 * (100.0 - left))
    name_rows(axes, names)
    return figure


def _ranked_classes(classes: Sequence[ClassResult]) -> Figure:
    figure, axes = panel("Classes", "top-1 accuracy, %", "rank of the class", right=74.0)
    values = [result.top1_percent for result in classes]
    ranks = range(1, len(classes) + 1)
    axes.plot(ranks, values, color=COLORS["neutral"])
    chosen = [
        (rank, result.top1_percent) for rank, result in zip(ranks, classes, strict=True) if result.group is not None
    ]
    axes.plot(*zip(*chosen, strict=True), "o", color=COLORS["blue"], markersize=2.5, markeredgewidth=0)
    add_hover(axes, ranks, values, [f"{result.name}\n{result.top1_percent:.1f} %" for result in classes])
    axes.margins(x=0.02)
    axes.grid(axis="x", visible=False)
    labels = [
        EndLabel(values[-1], f"all {len(classes)}", COLORS["muted"]),
        EndLabel(values[-1], f"subset, {len(chosen)}", COLORS["blue"]),
    ]
    label_ends(axes, labels)
    return figure


def _class_mark(axes: Axes, x: float, y: float, chosen: bool) -> None:
    color = COLORS["blue" if chosen else "neutral"]
    axes.plot(x, y, "o", color=color, markersize=5.5 if chosen else 4, markeredgewidth=0, clip_on=False)


def validation_figure(validation: Sequence[Row]) -> Figure:
    """Whole networks: the table's sum (Eq. 4) against the time measured end to end."""
    figure, axes = panel("Latency table on whole networks", "measured, ms", "table, ms", right=74.0)
    table = [row["table_ms"] for row in validation]
    measured = [row["measured_ms"] for row in validation]
    low, high = min(table + measured), max(table + measured)
    margin = 0.06 * (high - low or high)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=COLORS["neutral"], linewidth=1.0)
    published = [row["network"] in zoo.names() for row in validation]
    for x, y, hollow in zip(table, measured, published, strict=True):
        axes.plot(x, y, "o", color=COLORS["blue"], markersize=4.5, markerfacecolor="none" if hollow else COLORS["blue"])
    add_hover(axes, table, measured, [_told_network(row) for row in validation])
    axes.set(xlim=limits, ylim=limits)
    label_ends(axes, [EndLabel(limits[1], "equal", COLORS["muted"])])
    return figure


def _told_network(row: Row) -> str:
    percent = 100.0 * (row["table_ms"] / row["measured_ms"] - 1.0)
    latencies = f"table {row['table_ms']:.3f} ms\nmeasured {row['measured_ms']:.3f} ms"
    return f"{row['network']}\n{latencies}\ntable {percent:+.1f} %"


def validation_error_text(validation: Sequence[Row]) -> str:
    """Mean of |table / measured - 1| in percent, of the random networks and of the paper's, with hit rates.

    Each network is judged by the table as corrected without it.
    """
    rows = [Validated(str(row["network"]), *(row[name] for name in VALIDATED)) for row in validation]
    metrics = validation_metrics(rows)
    published = sum(row.is_published for row in rows)
    parts = []
    for prefix, count, what in (("", len(rows) - published, "random"), ("published_", published, "published")):
        if count:
            error = f"{prefix}mean_absolute_percentage_error"
            low, high = metrics.get(f"{error}_low"), metrics.get(f"{error}_high")
            interval = "" if low is None else f"95 % interval {low:.1f} to {high:.1f} %; "
            hits = hit_rates_text(metrics, prefix)
            parts.append(f"{metrics[error]:.1f} % ({interval}{hits}) on {count} {what} network{'s' * (count > 1)}")
    return " and ".join(parts)


def tradeoff_figure(targets: Sequence[TargetResult], published: Sequence[DeviceRow] = ()) -> Figure:
    """Accuracy against latency: by the table (filled), measured end to end on the table's device (hollow).

    Args:
        published: networks of the paper by the same table, with the paper's accuracies; none where the task differs.
    """
    figure, axes = panel("Accuracy against latency", "top-1 accuracy after retraining, %", "latency, ms", right=74.0)
    colors = target_colors(targets)
    for target in targets:
        color = COLORS[colors[target.name]]
        top1 = target.mean
        table, measured = target.table_ms, target.derived["measured_latency_ms"]
        shown = [] if table is None else [table]
        if target.measured_on_the_tables_device:
            shown = [*shown, measured]
            axes.plot(shown, [top1] * len(shown), color=color, linewidth=0.8)
            axes.plot(measured, top1, "o", markersize=6, markerfacecolor="none", markeredgecolor=color)
        if table is not None:
            axes.plot(table, top1, "o", markersize=6, color=color, markeredgewidth=0)
        by_table = "" if table is None else f"table {table:.3f} ms\n"
        told = f"{target.name}\n{top1:.2f} %\n{by_table}measured {measured:.3f} ms"
        add_hover(axes, shown, [top1] * len(shown), [told] * len(shown))
    for row in published:
        axes.plot(row.table_ms, row.published_top1_percent, "D", color=COLORS["neutral"], markersize=5)
        told = f"{row.name} (paper)\n{row.published_top1_percent} % by the paper\ntable {row.table_ms:.3f} ms here"
        add_hover(axes, [row.table_ms], [row.published_top1_percent], [told])
    room_around_points(axes)
    label_ends(axes, [name_label(t.name, t.mean, COLORS[colors[t.name]]) for t in targets])
    return figure


def stage_latency_figure(table: LatencyTable, targets: Sequence[TargetResult]) -> Figure:
    """Where the time of each network goes: the fixed part and every searched stage, by the table (Eq. 4).

    Networks outside of the table's space are left out; one or more are in it.
    """
    colors = target_colors(targets)
    targets = [target for target in targets if target.table_ms is not None]
    parts = {target.name: stage_latencies(table, target.architecture) for target in targets}
    names = sorted({part for latencies in parts.values() for part in latencies})  # 0, the fixed part, first
    thickness = 0.8 / len(targets)
    height = 0.95 + len(names) * max(0.22, 0.135 * len(targets))
    right = 30.0 + 5.2 * min(9, max(len(target.name) for target in targets))
    title, unit = "Where the time goes", "latency by the table, ms"
    figure, axes = panel(title, unit, "ms", height=height, left=50.0, right=right)
    for i, target in enumerate(targets):
        for row, part in enumerate(names):
            y, ms = row - 0.4 + thickness * (i + 0.5), parts[target.name].get(part, 0.0)
            axes.barh(y, ms, height=0.9 * thickness, color=COLORS[colors[target.name]], linewidth=0)
            axes.annotate(
                f"{ms:#.3g} {shorten(target.name, 9)}", (ms, y), (3, 0), textcoords="offset points", va="center",
                size=SMALL, color=COLORS["muted"],
            )  # fmt: skip
    name_rows(axes, [f"stage {part}" if part else "fixed part" for part in names])
    return figure


def stage_latencies(table: LatencyTable, architecture: Architecture) -> dict[int, float]:
    """Milliseconds of each searched stage; under 0 those of the fixed part."""
    latencies = {0: table.base_ms}
    for block, ms in table.blocks_ms(architecture):
        latencies[block.stage] = latencies.get(block.stage, 0.0) + ms
    return latencies


def percentages_figure(target: TargetResult, names: Sequence[str]) -> Figure:
    """Two layers' derived operations, counted after each searching epoch, as parts of a bar; the most frequent named.

    Layers 12 and 17 as in the paper; in a space with fewer, those at the same places.

    Args:
        names: all operations that get a color, the same for every target.
    """
    counts = operation_counts(target)
    figure, axes = panel(
        f"Target {target.name}", "derived operations while searching, % of epochs", "", height=1.5, right=92.0
    )
    for i, found in enumerate(counts.values()):
        start, total = 0.0, found.total()
        for name in sorted(found, key=lambda name: (-found[name], name)):
            width = 100.0 * found[name] / total
            color = COLORS[operation_color(name, names)]
            axes.broken_barh([(start, max(width - 0.5, 0.3))], (i - 0.3, 0.6), facecolors=color, linewidth=0)
            start += width
        name, most = found.most_common(1)[0]
        axes.annotate(
            f"{name} {100.0 * most / total:.0f} %", (1.0, i), (5, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", size=SMALL, annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(0.0, 100.0)
    name_rows(axes, list(counts))
    axes.tick_params(axis="y", labelsize=SMALL)
    return figure


def operation_counts(target: TargetResult) -> dict[str, Counter[str]]:
    """For the two layers, named like `6.4`: in how many searching epochs each operation was the strongest.

    Warm-up epochs, in which alpha is frozen, do not count (unless there are no others).
    """
    rows = [row for row in target.search if row.get("architecture_loss", 0.0) is not None] or target.search
    layers = [match for match in map(LAYER.fullmatch, rows[0]) if match]
    places = dict.fromkeys(max(0, round(number / OF_LAYERS * len(layers)) - 1) for number in PAPER_LAYERS)
    return {
        f"{layers[place][1]}.{layers[place][2]}": Counter(str(row[layers[place][0]]) for row in rows)
        for place in places
        if layers
    }
