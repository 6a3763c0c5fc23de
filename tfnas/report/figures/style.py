"""How every figure looks (colors, type, sizes), writing one with reproducible bytes, and texts shown on hover.

Hover texts are titles of circles over the points. Browsers show a title by themselves; the page's script shows it at
once, for the nearest point.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfnas.jobs.artifacts import atomic_path, shorten
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RADIUS = 5.0  # points; what the pointer must hit without the script
WIDTH_INCHES = 4.4  # one column of the page; on a phone the whole width
# Colors of the light scheme; in the page each becomes a CSS variable of the same name, to which the dark scheme can
# give another value. Hence no color appears twice.
COLORS = {
    "ink": "#1f2a37",
    "muted": "#5f6b7a",
    "grid": "#dde2e8",
    "band": "#f2f4f7",
    "neutral": "#b4bdc8",
    "red": "#b4374b",
    "blue": "#2c69b0",
    "blue-light": "#a6c5e8",
    "orange": "#c0602a",
    "orange-light": "#efbf9c",
    "green": "#2b8a67",
    "green-light": "#a3d6c1",
    "purple": "#7e53a6",
    "purple-light": "#ccb5e2",
}
SMALL = 7.5  # points, next to the base size below
SERIES = ("blue", "orange", "green", "purple")
RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],  # comes with matplotlib: the same layout everywhere
    "font.size": 8.5,
    "text.color": COLORS["ink"],
    "text.parse_math": False,  # a name may hold a dollar sign
    "axes.edgecolor": COLORS["grid"],
    "axes.labelcolor": COLORS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": COLORS["grid"],
    "ytick.color": COLORS["grid"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",  # text stays text: it can be found, copied and read aloud
    "svg.hashsalt": "tfnas",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def styled() -> AbstractContextManager[Any]:
    """The context in which figures are made and saved."""
    import matplotlib

    return matplotlib.rc_context(RC)


def new_figure(height_inches: float, width_inches: float = WIDTH_INCHES) -> Figure:
    """An empty figure outside pyplot: no window, no state shared between figures."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches))


def save_figure(make: Callable[[], Figure], file: Any, suffix: str) -> Figure:
    """Draw and write a figure as `svg` or `png`, without dates, on white where the format is opaque."""
    with styled():
        figure = make()
        if suffix == "svg":
            no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(file, format="svg", metadata=no_metadata)
        else:
            figure.savefig(file, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return figure


def write_figure(make: Callable[[], Figure], path: str | Path) -> None:
    """Draw and write a figure, as SVG or PNG by the suffix of `path`, atomically.

    Raises:
        UserError: another suffix.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in ("svg", "png"):
        raise UserError(f"{path}: a drawing is written as .svg or .png; change the suffix")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        save_figure(make, file, suffix)


def inline_svg(make: Callable[[], Figure], name: str, label: str) -> str:
    """A figure as an `<svg>` element to stand inside a page, with the texts of its points (`add_hover`).

    Args:
        name: prefix of every id in it, so that no two figures of a page share one; letters, digits, `-`.
        label: what the figure shows, for screen readers.
    """
    buffer = io.StringIO()
    figure = save_figure(make, buffer, "svg")
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip().removesuffix("</svg>")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _fit_tag(tag[0], name), svg)  # tags alone: texts may hold the same words
    opening, rest = svg.split(">", 1)
    opening = re.sub(r'\s(?:width|height|version)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{escape(label)}">{rest}{hover_svg(figure)}</svg>'


def _fit_tag(tag: str, name: str) -> str:
    """A tag of a figure with the page's ids and colors."""
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'href="#', f'href="#{name}-', tag)
    tag = tag.replace("url(#", f"url(#{name}-")
    for variable, color in COLORS.items():
        tag = tag.replace(color, f"var(--{variable})")
    return tag


class Hover(NamedTuple):
    """A text at a place in the data of a pair of axes."""

    axes: Axes
    x: float
    y: float
    text: str


def add_hover(axes: Axes, xs: Sequence[float], ys: Sequence[float], texts: Sequence[str]) -> None:
    """Give points their texts; their positions are computed when the figure is written."""
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
