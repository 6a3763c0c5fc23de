"""What the HTML pages have in common: their templates' environment, and figures that stand inside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.report.figures.style import inline_svg

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"  # report.html, and the style, script and foot of every page


def page_environment(*folders: Path) -> Environment:
    """For templates of some folders, which may include those of the report; escapes, and refuses unknown names."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def figure_markup(name: str, label: str, make: Callable[[], Figure]) -> Markup:
    """A figure inside a page, as `inline_svg`."""
    return safe(inline_svg(make, name, label))


def safe(svg: str) -> Markup:
    """The figures are made here and their texts escaped; everything else the template escapes."""
    from markupsafe import Markup

    return Markup(svg)
