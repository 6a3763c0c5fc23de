"""Figures of a search: accuracies, latency, depth and operations over the epochs (Sec. 3.2, 3.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from tfnas.report.figures.drawing import MARKED_EPOCHS, EndLabel, epoch_axis, label_ends, name_rows, panel
from tfnas.report.figures.style import COLORS, SMALL, add_hover
from tfnas.report.inputs import Row, TargetResult
from tfnas.report.learning import COLUMNS as LEARNING_COLUMNS
from tfnas.report.learning import chance_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYER = re.compile(r"stage(\d+)_layer(\d+)_op")
DEPTH = re.compile(r"stage(\d+)_depth")
OPERATION = re.compile(r"k(?P<kernel>\d+)_e(?P<ratio>\d+(?:\.\d+)?)(?P<se>_se)?")
HUES = {(3, False): "blue", (3, True): "green", (5, False): "orange", (5, True): "purple"}
ROW_INCHES = 0.17
SKIP = "skip"  # the operation of a layer left out, in the alternatives to sink-connecting


def latency_figure(target: TargetResult) -> Figure:
    """Latency of the derived network before and after elasticity-scaling, and LAT(α, β) of Eq. 6, each epoch."""
    epochs = [row["epoch"] for row in target.search]
    figure, axes = panel(f"Target {target.name}", "table latency, ms", "epoch", right=92.0)
    lines = (
        ("expected_latency_ms", "expected", "neutral", "-"),
        ("derived_latency_before_ms", "before scaling", "orange", "o-"),
        ("derived_latency_after_ms", "after scaling", "blue", "o-"),
    )
    target_ms = target.search[-1]["target_ms"]
    labels = [EndLabel(target_ms, f"target {target_ms:#.4g}", COLORS["red"])]
    axes.axhline(target_ms, color=COLORS["red"], linewidth=1.0, linestyle=(0, (4, 3)))
    for column, text, color, marks in lines:
        values = [row[column] for row in target.search]
        axes.plot(epochs, values, marks, color=COLORS[color], markersize=3 if len(epochs) <= MARKED_EPOCHS else 0)
        shade = COLORS["muted"] if color == "neutral" else COLORS[color]
        labels.append(EndLabel(values[-1], f"{text} {values[-1]:#.4g}", shade))
        texts = [f"epoch {epoch}\n{text} {value:.4g} ms" for epoch, value in zip(epochs, values, strict=True)]
        add_hover(axes, epochs, values, texts)
    axes.margins(y=0.12)
    epoch_axis(axes, epochs)
    _shade_warm_up(axes, target.search)
    label_ends(axes, labels)
    return figure


def learning_figure(target: TargetResult) -> Figure:
    """Top-1 on the 20 % of the derived path, of sampled paths and of random ones (a band of their spread), and chance.

    The warm-up is shaded.
    """
    rows, chance = target.search, chance_percent(target)
    epochs = [row["epoch"] for row in rows]
    figure, axes = panel(f"Target {target.name}: does it learn?", "top-1 in the supernet, %", "epoch", right=92.0)
    axes.axhline(chance, color=COLORS["muted"], linewidth=1.0, linestyle=(0, (4, 3)))
    labels = [EndLabel(chance, f"chance {chance:.0f}", COLORS["muted"])]
    if all(row.get("random_top1_mean") is not None for row in rows):
        labels.append(_random_band(axes, epochs, rows))
    for name, color, marks in (("sampled", "orange", "-"), ("derived", "blue", "o-")):
        values = [row[LEARNING_COLUMNS[name]] for row in rows]
        axes.plot(epochs, values, marks, color=COLORS[color], markersize=3 if len(epochs) <= MARKED_EPOCHS else 0)
        labels.append(EndLabel(values[-1], f"{name} {values[-1]:.1f}", COLORS[color]))
        texts = [f"epoch {epoch}\n{name} {value:.1f} %" for epoch, value in zip(epochs, values, strict=True)]
        add_hover(axes, epochs, values, texts)
    axes.margins(y=0.06)
    epoch_axis(axes, epochs)
    _shade_warm_up(axes, rows)
    label_ends(axes, labels)
    return figure


def _random_band(axes: Axes, epochs: Sequence[int], rows: Sequence[Row]) -> EndLabel:
    means, stds = ([row[f"random_top1_{kind}"] for row in rows] for kind in ("mean", "std"))
    pairs = list(zip(means, stds, strict=True))
    low, high = [max(mean - std, 0.0) for mean, std in pairs], [min(mean + std, 100.0) for mean, std in pairs]
    axes.fill_between(epochs, low, high, color=COLORS["green-light"], alpha=0.5, linewidth=0)
    axes.plot(epochs, means, color=COLORS["green"])
    texts = [f"epoch {e}\nrandom {mean:.1f} ± {std:.1f} %" for e, (mean, std) in zip(epochs, pairs, strict=True)]
    add_hover(axes, epochs, means, texts)
    return EndLabel(means[-1], f"random {means[-1]:.1f} ± {stds[-1]:.1f}", COLORS["green"])


def _shade_warm_up(axes: Axes, rows: Sequence[Row]) -> None:
    """Epochs in which α and β are frozen: those without a loss of architecture steps."""
    frozen = [row["epoch"] for row in rows if row.get("architecture_loss", 0.0) is None]
    if frozen and len(frozen) < len(rows):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.08 * (high - low))  # room for the word
        axes.axvspan(min(frozen) - 1, max(frozen) + 0.5, color=COLORS["band"], linewidth=0, zorder=0)
        axes.annotate(
            "warm-up", (min(frozen), 1.0), (0, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
            va="top", size=SMALL, color=COLORS["muted"],
        )  # fmt: skip


def depth_figure(target: TargetResult) -> Figure:
    """Depth of every stage each epoch, as steps, and the last depth next to the deepest possible."""
    rows = target.search
    deepest = _layers(rows)
    stages = [int(match[1]) for match in map(DEPTH.fullmatch, rows[0]) if match]
    height = 0.9 + 0.27 * max(len(stages), 1)
    figure, axes = panel(f"Target {target.name}", "depth of each stage, blocks", "epoch", height=height, left=42.0)
    edges = _edges(rows)
    for i, stage in enumerate(stages):
        depths = [row[f"stage{stage}_depth"] for row in rows]
        most = max(len(deepest.get(stage, ())), *depths)
        floor, unit = i + 0.38, 0.76 / most
        axes.stairs([floor - unit * most], [edges[0], edges[-1]], baseline=floor, fill=True, color=COLORS["band"])
        tops = [floor - unit * depth for depth in depths]
        axes.stairs(tops, edges, baseline=floor, fill=True, color=COLORS["blue-light"], linewidth=0)
        axes.stairs(tops, edges, baseline=None, color=COLORS["blue"], linewidth=1.2)
        axes.annotate(
            f"{depths[-1]} of {most}", (1.0, i), (5, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", annotation_clip=False,
        )  # fmt: skip
    epoch_axis(axes, [row["epoch"] for row in rows])
    axes.set_xlim(edges[0], edges[-1])
    name_rows(axes, [f"stage {stage}" for stage in stages])
    return figure


def operations_figure(target: TargetResult, names: Sequence[str]) -> Figure:
    """Strongest operation of every layer each epoch; thin where the layer is beyond the derived depth.

    Args:
        names: all operations that get a color, the same for every target.
    """
    rows = target.search
    layers = [(stage, position) for stage, positions in _layers(rows).items() for position in positions]
    height = 1.05 + ROW_INCHES * max(len(layers), 1)
    figure, axes = panel(f"Target {target.name}", "operation of each layer", "epoch", height=height, right=92.0)
    edges = _edges(rows)
    for i, (stage, position) in enumerate(layers):
        _operation_row(axes, i, stage, position, rows, edges, names)
    epoch_axis(axes, [row["epoch"] for row in rows])
    axes.set_xlim(edges[0], edges[-1])
    name_rows(axes, [f"{stage}.{position}" for stage, position in layers])
    axes.tick_params(axis="y", labelsize=SMALL)
    return figure


def _operation_row(
    axes: Axes, i: int, stage: int, position: int, rows: Sequence[Row], edges: Sequence[float], names: Sequence[str]
) -> None:
    prefix = f"stage{stage}_layer{position}"
    states = [(row[f"{prefix}_op"], _is_used(row, stage, position)) for row in rows]
    start = 0
    for (operation, used), run in groupby(states):
        end = start + len(list(run))
        height = 0.8 if used else 0.16
        span = [(edges[start], edges[end] - edges[start])]
        color = COLORS[operation_color(operation, names)]
        axes.broken_barh(span, (i - height / 2, height), facecolors=color, linewidth=0)
        start = end
    operation, used = states[-1]
    text = f"{operation}, {rows[-1][f'{prefix}_width']}" if used else "–"
    axes.annotate(
        text, (1.0, i), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center", size=SMALL,
        color=COLORS["ink" if used else "muted"], annotation_clip=False,
    )  # fmt: skip


def _is_used(row: Row, stage: int, position: int) -> bool:
    """Whether a layer is in the derived network: up to the depth, or, where layers can be skipped, if it is not."""
    operations = [row[name] for name in row if (match := LAYER.fullmatch(name)) and int(match[1]) == stage]
    if SKIP in operations:
        return row[f"stage{stage}_layer{position}_op"] != SKIP
    return position <= row[f"stage{stage}_depth"]


def operation_names(targets: Sequence[TargetResult]) -> list[str]:
    """All operations that were the strongest of a layer at some epoch."""
    return sorted(
        {
            str(value)
            for target in targets
            for row in target.search
            for name, value in row.items()
            if LAYER.fullmatch(name)
        }
    )


def operation_color(name: str, names: Sequence[str]) -> str:
    """Key in `COLORS`: the hue says kernel and SE, the light shade the smaller of the widths among `names`."""
    match = OPERATION.fullmatch(name)
    if match is None or (int(match["kernel"]), bool(match["se"])) not in HUES:
        return "neutral"
    ratios = {found["ratio"] for found in map(OPERATION.fullmatch, names) if found}
    hue = HUES[int(match["kernel"]), bool(match["se"])]
    is_narrow = len(ratios) > 1 and float(match["ratio"]) < max(map(float, ratios))
    return f"{hue}-light" if is_narrow else hue


def _layers(rows: Sequence[Row]) -> dict[int, list[int]]:
    """Positions of the layers of each stage, as the columns name them."""
    layers: dict[int, list[int]] = {}
    for match in map(LAYER.fullmatch, rows[0]):
        if match:
            layers.setdefault(int(match[1]), []).append(int(match[2]))
    return layers


def _edges(rows: Sequence[Row]) -> list[float]:
    """Where the cells of the epochs meet: half an epoch before the first, after it, and so on."""
    return [rows[0]["epoch"] - 0.5, *(row["epoch"] + 0.5 for row in rows)]
