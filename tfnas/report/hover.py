"""Values that a figure shows while the pointer is near a point: circles over it, each with its text as a title.

A browser shows a title by itself; the script of the page does it at once, and for the nearest point.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from tfnas.runtime.artifacts import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RADIUS = 5.0  # points; what the pointer must hit where no script runs


class Hover(NamedTuple):
    """A text at a place in the data of a pair of axes."""

    axes: Axes
    x: float
    y: float
    text: str


def add_hover(axes: Axes, xs: Sequence[float], ys: Sequence[float], texts: Sequence[str]) -> None:
    """Give points their texts; where the axes end up is worked out when the figure is written."""
    points = [Hover(axes, x, y, text) for x, y, text in zip(xs, ys, texts, strict=True)]
    axes.figure.hovers = [*getattr(axes.figure, "hovers", ()), *points]


def hover_svg(figure: Figure) -> str:
    """The circles as an SVG group in the coordinates of the figure's SVG (points from the top left); empty without."""
    points: Sequence[Hover] = getattr(figure, "hovers", ())
    if not points:
        return ""
    height = 72.0 * figure.get_size_inches()[1]
    circles = []
    for point in points:
        x, y = (72.0 / figure.dpi * place for place in point.axes.transData.transform((point.x, point.y)))
        title = f"<title>{escape(shorten(point.text, len(point.text)), quote=False)}</title>"
        circles.append(f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="{RADIUS:g}">{title}</circle>')
    return f'<g class="hover">{"".join(circles)}</g>'
