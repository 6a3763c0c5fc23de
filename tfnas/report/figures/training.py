"""Curves over the epochs, one line per target: accuracies of supernet and trained networks, entropy of α."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tfnas.report.figures.drawing import MARKED_EPOCHS, epoch_axis, label_ends, name_label, panel, target_colors
from tfnas.report.figures.style import COLORS, add_hover
from tfnas.report.inputs import Row, TargetResult, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_figure(title: str, trainings: Mapping[str, Training], colors: Mapping[str, str]) -> Figure:
    """Top-1 accuracy of each epoch: on validation images (thick) and on augmented training images (thin).

    Args:
        trainings: by the name of the target.
        colors: key in `COLORS` of each target.
    """
    figure, axes = panel(title, "top-1 accuracy, %", "epoch")
    labels = []
    for name, training in trainings.items():
        color = COLORS[colors[name]]
        epochs = [row["epoch"] for row in training.history]
        axes.plot(epochs, [row["train_top1"] for row in training.history], color=color, linewidth=0.8, alpha=0.6)
        top1 = [row["val_top1"] for row in training.history]
        axes.plot(epochs, top1, "o-", color=color, markersize=3 if len(epochs) <= MARKED_EPOCHS else 0)
        add_hover(axes, epochs, top1, [_told(name, row) for row in training.history])
        labels.append(name_label(name, top1[-1], color))
    axes.margins(y=0.06)
    epoch_axis(axes, [row["epoch"] for training in trainings.values() for row in training.history])
    label_ends(axes, labels)
    return figure


def _told(name: str, row: Row) -> str:
    return f"{name}, epoch {row['epoch']}\nvalidation {row['val_top1']:.2f} %\ntraining {row['train_top1']:.2f} %"


def supernet_figure(targets: Sequence[TargetResult]) -> Figure:
    """Top-1 of Gumbel paths on the 20 % of the subset, each epoch: a mean over paths that α prefers, not over all."""
    return _search_curve("Accuracy", "top-1 of paths sampled by α, %", targets, "val_top1", "{:.1f}".format)


def entropy_figure(targets: Sequence[TargetResult]) -> Figure:
    """Entropy of softmax(α), mean over the layers: how undecided the choice of operations still is."""
    return _search_curve("Entropy of α", "mean over the layers, nats", targets, "alpha_entropy", "{:.2f}".format)


def _search_curve(
    title: str, unit: str, targets: Sequence[TargetResult], column: str, write: Callable[[float], str]
) -> Figure:
    """Of the searched targets, of which there is one or more."""
    figure, axes = panel(title, unit, "epoch")
    colors, labels = target_colors(targets), []
    for target in targets:
        if target.is_given:
            continue
        values, color = [row[column] for row in target.search], COLORS[colors[target.name]]
        epochs = [row["epoch"] for row in target.search]
        axes.plot(epochs, values, color=color)
        texts = [f"{target.name}, epoch {epoch}\n{write(value)}" for epoch, value in zip(epochs, values, strict=True)]
        add_hover(axes, epochs, values, texts)
        labels.append(name_label(target.name, values[-1], color, write))
    epoch_axis(axes, [row["epoch"] for target in targets for row in target.search])
    label_ends(axes, labels)
    return figure
