"""What the charts share: one panel with a title and units, and labels at the ends of lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tfnas.report.inputs import TargetResult
from tfnas.report.style import COLORS, SERIES, SMALL, new_figure
from tfnas.runtime.artifacts import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKED_EPOCHS = 40  # a line of so many epochs has a mark at each
GAP = 10.0  # points between two labels at least
LEFT, BOTTOM, TOP = 30.0, 30.0, 30.0  # margins in points


class EndLabel(NamedTuple):
    """Text at the right end of a line that ends at `y` (data)."""

    y: float
    text: str
    color: str


def panel(
    title: str, unit: str, x_label: str, *, height: float = 2.55, left: float = LEFT, right: float = 66.0
) -> tuple[Figure, Axes]:
    """A figure with one pair of axes: title and, below it, the unit of y; the name of x under the axis.

    Args:
        height: of the figure, in inches.
        left, right: margins in points, for labels beside the axes.
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
    """Write labels right of the axes, each beside its y and at least `GAP` from the next. Call it last."""
    height = 72.0 * axes.bbox.height / axes.figure.dpi  # points
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda label: label.y)
    wanted = [height * (label.y - low) / (high - low) for label in ordered]
    for label, place in zip(ordered, spread(wanted, GAP, height), strict=True):
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
