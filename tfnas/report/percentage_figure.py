"""How often each operation was the derived one of a layer while searching (Fig. 2a, b, d, e)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfnas.report.charts import name_rows, panel
from tfnas.report.inputs import TargetResult
from tfnas.report.search_figures import LAYER, operation_color
from tfnas.report.style import COLORS, SMALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER_LAYERS, OF_LAYERS = (12, 17), 18  # the two layers of Fig. 2, of Table 1's


def percentages_figure(target: TargetResult, names: Sequence[str]) -> Figure:
    """Two layers' derived operations, counted after each searching epoch, as parts of a bar; the most frequent named.

    Layers 12 and 17 as in the paper; in a space with fewer, those at the same places.

    Args:
        names: of all operations to give a colour to, the same for every target.
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
    """Of the two layers, as `6.4`: in how many searching epochs each operation was the strongest.

    Epochs of the warm-up, in which alpha is frozen, do not count (unless there are no others).
    """
    rows = [row for row in target.search if row.get("architecture_loss", 0.0) is not None] or target.search
    layers = [match for match in map(LAYER.fullmatch, rows[0]) if match]
    places = dict.fromkeys(max(0, round(number / OF_LAYERS * len(layers)) - 1) for number in PAPER_LAYERS)
    return {
        f"{layers[place][1]}.{layers[place][2]}": Counter(str(row[layers[place][0]]) for row in rows)
        for place in places
        if layers
    }
