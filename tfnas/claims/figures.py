"""The paper's figures from the claims' runs: lines of means over seeds in bands from the lowest to the highest."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tfnas.claims.claims import OBJECTIVES
from tfnas.claims.units import Row, Runs, Unit, depth_of, shares
from tfnas.claims.variants import DEFAULT, LAMBDAS, ONE_PATH, lambda_name
from tfnas.report.figures.drawing import EndLabel, epoch_axis, label_ends, panel
from tfnas.report.figures.style import COLORS, add_hover

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Make = Callable[[], "Figure"]
WEIGHTS = {"none": "separate weights", "entangled": "shared weights"}  # how the page calls search.weight_sharing
RIGHT = 84.0  # points, for the labels
ONE, TWO, SKIP_IN, SKIP_OUT, SINK = "one path", "bi-sampling", "skip in", "skip out", "sink"


def figures(runs: Runs, sharing: str) -> dict[str, list[tuple[str, Make]]]:
    """(label for screen readers, how to draw it) by the claim's key; of claims whose variants have a finished unit."""
    title = WEIGHTS[sharing]
    wanted: dict[str, list[tuple[str, tuple[str, ...], Make]]] = {
        "figure-2": [
            (f"Shares, {title}", (DEFAULT, ONE_PATH), partial(share_figure, f"Most frequent operation, {title}", runs)),
            (f"Accuracy, {title}", (DEFAULT, ONE_PATH), partial(accuracy_figure, f"Supernet, {title}", runs)),
        ],
        "figure-4a": [
            (f"Depth, {title}", (DEFAULT, "skip_in", "skip_out"), partial(depth_figure, f"Depth, {title}", runs))
        ],
        "figure-4b": [
            (f"{name}, {title}", pair, partial(latency_figure, f"{name}, {title}", runs, *pair))
            for name, pair in OBJECTIVES.items()
        ],
        "figure-8": [
            (f"λ = {value:g}, {title}", pair, partial(latency_figure, f"λ = {value:g}, {title}", runs, *pair))
            for value, pair in _lambda_pairs().items()
        ],
    }
    return {
        key: [(label, make) for label, names, make in drawn if all(runs.get(name) for name in names)]
        for key, drawn in wanted.items()
    }


def _lambda_pairs() -> dict[float, tuple[str, str]]:
    return {value: (lambda_name(value, scaled=True), lambda_name(value, scaled=False)) for value in LAMBDAS}


def share_figure(title: str, runs: Runs) -> Figure:
    """Fig. 2a, b, d, e for all layers: how often each layer's most frequent operation was derived."""
    figure, axes = panel(title, "share of the searching epochs, %", "searchable layer, by stage.layer", right=RIGHT)
    labels = []
    for name, variant, color in ((ONE, ONE_PATH, "orange"), (TWO, DEFAULT, "blue")):
        found = [shares(unit) for unit in runs[variant].values()]
        layers = list(found[0])
        values = [[one[layer] for one in found] for layer in layers]
        labels.append(_band(axes, list(range(len(layers))), values, name, color, "%"))
    axes.set_xticks(range(len(layers)), [layer.replace("stage", "").replace("_layer", ".") for layer in layers])
    axes.set_ylim(0, 104)
    axes.grid(axis="x", visible=False)
    label_ends(axes, labels)
    return figure


def accuracy_figure(title: str, runs: Runs) -> Figure:
    """Fig. 2c, f: top-1 of sampled paths on validation images (thick) and training images (thin)."""
    figure, axes = panel(title, "top-1 of sampled paths, %; thin: on training images", "epoch", right=RIGHT)
    labels = []
    for name, variant, color in ((ONE, ONE_PATH, "orange"), (TWO, DEFAULT, "blue")):
        units = list(runs[variant].values())
        epochs, values = _by_epoch(units, lambda row: float(row["val_top1"]))
        labels.append(_band(axes, epochs, values, name, color, "%"))
        _, trained = _by_epoch(units, lambda row: float(row["train_top1"]))
        axes.plot(epochs, [statistics.fmean(each) for each in trained], color=COLORS[color], linewidth=0.8, alpha=0.7)
    _finish(axes, epochs, labels)
    return figure


def depth_figure(title: str, runs: Runs) -> Figure:
    """Fig. 4a: searchable layers of the derived network, in the three depth spaces."""
    figure, axes = panel(title, "layers of the derived network", "epoch", right=RIGHT)
    labels = []
    for name, variant, color in (
        (SKIP_IN, "skip_in", "orange"),
        (SKIP_OUT, "skip_out", "green"),
        (SINK, DEFAULT, "blue"),
    ):
        units = list(runs[variant].values())
        epochs, values = _by_epoch(units, depth_of, only_searching=True)
        labels.append(_band(axes, epochs, values, name, color, "layers"))
    _finish(axes, epochs, labels)
    return figure


def latency_figure(title: str, runs: Runs, scaled: str, unscaled: str) -> Figure:
    """Fig. 4b, 5 and 8: latency of the derived network with and without elasticity-scaling, and the target."""
    figure, axes = panel(title, "latency of the derived network, ms", "epoch", right=RIGHT)
    labels = []
    for name, variant, color in (("not scaled", unscaled, "orange"), ("scaled", scaled, "blue")):
        units = list(runs[variant].values())
        epochs, values = _by_epoch(units, lambda row: float(row["derived_latency_after_ms"]), only_searching=True)
        labels.append(_band(axes, epochs, values, name, color, "ms"))
    target = float(units[0].values["target_ms"])
    axes.axhline(target, color=COLORS["red"], linewidth=1.0, linestyle=(0, (4, 3)))
    labels.append(EndLabel(target, f"target {target:.2f}", COLORS["red"]))
    _finish(axes, epochs, labels)
    return figure


def _by_epoch(
    units: Sequence[Unit], measure: Callable[[Row], float], *, only_searching: bool = False
) -> tuple[list[int], list[list[float]]]:
    """Epochs that all units have, and of each the values of all units."""
    histories = [unit.searching if only_searching else unit.history for unit in units]
    rows = list(zip(*histories, strict=False))
    return [int(row[0]["epoch"]) for row in rows], [[measure(one) for one in row] for row in rows]


def _band(
    axes: Axes, xs: Sequence[int], values: Sequence[Sequence[float]], name: str, color: str, unit: str
) -> EndLabel:
    """A line through the means, a band from the smallest to the largest."""
    means = [statistics.fmean(each) for each in values]
    axes.fill_between(
        xs, [min(each) for each in values], [max(each) for each in values], color=COLORS[color], alpha=0.2, linewidth=0
    )
    axes.plot(xs, means, "o-", color=COLORS[color], markersize=3)
    texts = [
        f"{name}\n{mean:.2f} {unit} ({min(each):.2f} to {max(each):.2f}, n = {len(each)})"
        for mean, each in zip(means, values, strict=True)
    ]
    add_hover(axes, xs, means, texts)
    return EndLabel(means[-1], f"{name} {means[-1]:.1f}", COLORS[color])


def _finish(axes: Axes, epochs: Sequence[int], labels: Sequence[EndLabel]) -> None:
    axes.margins(y=0.08)
    epoch_axis(axes, epochs)
    label_ends(axes, labels)


FIGURES: Mapping[str, str] = {
    "figure-2": "Line: mean over seeds. Band: lowest to highest. The paper shows two layers; these are all.",
    "figure-4a": "Line: mean over seeds. Band: lowest to highest.",
    "figure-4b": "Line: mean over seeds. Band: lowest to highest. C1 and C2 are Table 5’s.",
    "figure-8": "Line: mean over seeds. Band: lowest to highest.",
}
