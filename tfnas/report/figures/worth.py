"""Figures of "Is the search worth it?": accuracy against latency, and in the supernet against trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfnas.jobs.artifacts import shorten
from tfnas.latency.params import RANDOM
from tfnas.report.figures.drawing import EndLabel, label_ends, panel, room_around_points
from tfnas.report.figures.style import COLORS, SMALL, add_hover
from tfnas.report.ranking import Ranking
from tfnas.report.worth import Compared, Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 18  # characters of a known network's
CHARACTER = 4.5  # points, about


def worth_figure(compared: Compared) -> Figure:
    """Top-1 against measured latency: the found network, random and known ones of its latency, and that latency.

    A bar is the deviation over seeds. Lines lead from the known networks and the found one to their names.
    """
    found, known, target_ms = compared.found, compared.known, compared.target_ms
    labels = [_label("found", found, "blue")]
    labels += [_label(shorten(network.name, LONGEST_NAME), network, "muted") for network in known]
    right = 14.0 + CHARACTER * max(len(label.text) for label in labels)
    figure, axes = panel(
        f"Target {found.name}", "top-1 accuracy after training, %", "latency measured, ms", right=right
    )
    _networks(axes, known, "neutral", "D", 4.5)
    _networks(axes, compared.random, "green", "o", 4.5)
    _networks(axes, [found], "blue", "o", 7.0)
    room_around_points(axes)
    if target_ms is not None:
        _target_line(axes, target_ms)
    label_ends(axes, labels)
    return figure


def _label(text: str, network: Trained, color: str) -> EndLabel:
    return EndLabel(network.mean, f"{text} {network.mean:.1f}", COLORS[color], network.latency_ms)


def _networks(axes: Axes, networks: Sequence[Trained], color: str, marker: str, size: float) -> None:
    for network in networks:
        axes.errorbar(
            network.latency_ms, network.mean, network.std, fmt=marker, color=COLORS[color], markersize=size,
            markeredgewidth=0, elinewidth=1.0, alpha=0.75 if color == "green" else 1.0,
        )  # fmt: skip
    texts = [f"{n.name}\n{_percent(n.mean, n.std)}\nmeasured {n.latency_ms:.3f} ms" for n in networks]
    add_hover(axes, [n.latency_ms for n in networks], [n.mean for n in networks], texts)


def _target_line(axes: Axes, target_ms: float) -> None:
    """The latency that was asked for, named above the points."""
    left, right = axes.get_xlim()
    margin = 0.06 * (max(right, target_ms) - min(left, target_ms))
    axes.set_xlim(min(left, target_ms - margin), max(right, target_ms + margin))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    axes.axvline(target_ms, color=COLORS["red"], linewidth=1.0, linestyle=(0, (4, 3)))
    is_left = axes.transLimits.transform((target_ms, low))[0] < 0.5
    axes.annotate(
        f"target {target_ms:#.4g} ms", (target_ms, 1.0), (4 if is_left else -4, -2), xycoords=("data", "axes fraction"),
        textcoords="offset points", va="top", ha="left" if is_left else "right", size=SMALL, color=COLORS["red"],
    )  # fmt: skip


def ranking_figure(ranking: Ranking, name: str) -> Figure:
    """Each random network: top-1 trained alone against top-1 in the supernet; hollow where it is of any size.

    Args:
        name: of the target.
    """
    figure, axes = panel(
        f"Target {name}: does the supernet rank?", "top-1 trained alone, %", "top-1 in the supernet, %", right=12.0
    )
    for network in ranking.networks:
        filled = network.kind == RANDOM
        axes.errorbar(
            network.supernet_top1, network.mean, network.std, fmt="o", color=COLORS["green"], markersize=5.5,
            markerfacecolor=COLORS["green"] if filled else "none", markeredgewidth=0 if filled else 1.2, elinewidth=1.0,
        )  # fmt: skip
    texts = [
        f"{n.name}\nalone {_percent(n.mean, n.std)}\nin the supernet {n.supernet_top1:.2f} %" for n in ranking.networks
    ]
    add_hover(axes, [n.supernet_top1 for n in ranking.networks], [n.mean for n in ranking.networks], texts)
    room_around_points(axes)
    return figure


def _percent(mean: float, std: float | None) -> str:
    return f"{mean:.2f} %" if std is None else f"{mean:.2f} ± {std:.2f} %"
