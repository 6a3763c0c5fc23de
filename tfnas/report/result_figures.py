"""Figures of the inputs and outcomes: classes, latency table, training, accuracy against latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfnas.report.charts import EndLabel, epoch_axis, label_ends, name_rows, panel
from tfnas.report.inputs import ClassResult, TargetResult, Training
from tfnas.report.style import COLORS, SERIES, shorten
from tfnas.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED_CLASSES = 30  # as many fit with their names


def class_figure(classes: Sequence[ClassResult]) -> Figure:
    """Top-1 accuracy of every class, best first, with those of the subset marked (Appendix B)."""
    return _named_classes(classes) if len(classes) <= NAMED_CLASSES else _ranked_classes(classes)


def _named_classes(classes: Sequence[ClassResult]) -> Figure:
    height = 0.95 + 0.2 * len(classes)
    figure, axes = panel("Classes", "top-1 accuracy, %", "%", height=height, left=92.0, right=74.0)
    lowest = min(result.top1_percent for result in classes)
    left = max(0.0, lowest - max(2.0, 0.25 * (100.0 - lowest)))
    for i, result in enumerate(classes):
        chosen = result.group is not None
        axes.hlines(i, left, result.top1_percent, color=COLORS["grid"], linewidth=1.0)
        _class_mark(axes, result.top1_percent, i, chosen)
        text = f"{result.top1_percent:.1f}" + (f"  group {result.group}" if chosen else "")
        axes.annotate(
            text, (1.0, i), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            size=7, color=COLORS["ink" if chosen else "muted"], annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(left, 100.0 + 0.02 * (100.0 - left))
    name_rows(axes, [shorten(result.name, 17) for result in classes])
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
    axes.plot(table, measured, "o", color=COLORS["blue"], markersize=4.5, markeredgewidth=0)
    axes.set(xlim=limits, ylim=limits)
    label_ends(axes, [EndLabel(limits[1], "table = measured", COLORS["muted"])])
    return figure


def validation_error_percent(validation: Sequence[Row]) -> float:
    """Mean of |table / measured - 1| over the networks, in percent."""
    errors = [abs(row["table_ms"] / row["measured_ms"] - 1.0) for row in validation]
    return 100.0 * sum(errors) / len(errors)


def tradeoff_figure(targets: Sequence[TargetResult]) -> Figure:
    """Accuracy against latency: by the table (filled), measured end to end (hollow)."""
    figure, axes = panel("Accuracy against latency", "top-1 accuracy after retraining, %", "latency, ms", right=74.0)
    for i, target in enumerate(targets):
        color = COLORS[SERIES[i % len(SERIES)]]
        top1 = target.retrain.metrics["top1_percent"]
        table, measured = target.derived["table_latency_ms"], target.derived["measured_latency_ms"]
        axes.plot([table, measured], [top1, top1], color=color, linewidth=0.8)
        axes.plot(measured, top1, "o", markersize=6, markerfacecolor="none", markeredgecolor=color)
        axes.plot(table, top1, "o", markersize=6, color=color, markeredgewidth=0)
    _room_around_points(axes)
    label_ends(axes, [_final_label(t.name, t.retrain, i) for i, t in enumerate(targets)])
    return figure


def _room_around_points(axes: Axes) -> None:
    """Margins, and a range of at least one percent point, so that noise does not look like a difference."""
    axes.margins(x=0.12, y=0.25)
    low, high = axes.get_ylim()
    if high - low < 1.0:
        middle = (low + high) / 2
        axes.set_ylim(middle - 0.5, middle + 0.5)


def training_figure(title: str, trainings: dict[str, Training], colors: dict[str, str]) -> Figure:
    """Top-1 accuracy of each epoch: on validation images (thick) and on augmented training images (thin).

    Args:
        trainings: by the name of the target.
        colors: key in `COLORS` of each target.
    """
    figure, axes = panel(title, "top-1 accuracy, %", "epoch", right=74.0)
    labels = []
    for name, training in trainings.items():
        color = COLORS[colors[name]]
        epochs = [row["epoch"] for row in training.history]
        axes.plot(epochs, [row["train_top1"] for row in training.history], color=color, linewidth=0.8, alpha=0.6)
        top1 = [row["val_top1"] for row in training.history]
        axes.plot(epochs, top1, "o-", color=color, markersize=3 if len(epochs) <= 40 else 0)
        labels.append(EndLabel(top1[-1], f"{name} {top1[-1]:.1f}", color))
    axes.margins(y=0.06)
    epoch_axis(axes, [row["epoch"] for training in trainings.values() for row in training.history])
    label_ends(axes, labels)
    return figure


def search_accuracy_figure(targets: Sequence[TargetResult], colors: dict[str, str]) -> Figure:
    """Top-1 of the supernet's Gumbel path on the 20 % of the subset, each epoch."""
    figure, axes = panel("Supernet", "top-1 accuracy of the Gumbel path, %", "epoch", right=74.0)
    labels = []
    for target in targets:
        top1 = [row["val_top1"] for row in target.search]
        axes.plot([row["epoch"] for row in target.search], top1, color=COLORS[colors[target.name]])
        labels.append(EndLabel(top1[-1], f"{target.name} {top1[-1]:.1f}", COLORS[colors[target.name]]))
    epoch_axis(axes, [row["epoch"] for target in targets for row in target.search])
    label_ends(axes, labels)
    return figure


def target_colors(targets: Sequence[TargetResult]) -> dict[str, str]:
    """One colour a target, the same in every figure."""
    return {target.name: SERIES[i % len(SERIES)] for i, target in enumerate(targets)}


def _final_label(name: str, training: Training, i: int) -> EndLabel:
    top1 = training.metrics["top1_percent"]
    return EndLabel(top1, f"{name} {top1:.1f}", COLORS[SERIES[i % len(SERIES)]])
