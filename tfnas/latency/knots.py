"""At which widths an operation is measured: first a few, then more where a line between them is not good enough.

A device may be faster at every `alignment`-th width (vector registers, blocked layouts): ONNX Runtime takes a third
of the time at multiples of 4 channels. Widths that are multiples and widths that are not are two classes, and each
has knots of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

INNER = 3  # knots of a class between its ends, before any refinement
OF_A_SECTION = 4.0  # a curve's bend over two intervals is about four times the error of the line over one of them


def first_knots(low: int, high: int, in_channels: int, alignment: int) -> tuple[int, ...]:
    """The widths to begin with: each class's ends and a few evenly between.

    A block as wide as its input has no expansion convolution: where that lies within the range, both sides of
    the jump are measured.
    """
    if low <= in_channels < high:
        below, above = (low, in_channels), (in_channels + 1, high)
        return tuple(sorted({*_of_classes(*below, alignment), *_of_classes(*above, alignment)}))
    return _of_classes(low, high, alignment)


def _of_classes(low: int, high: int, alignment: int) -> tuple[int, ...]:
    knots = {low, high}
    for members in classes(range(low, high + 1), alignment):
        places = np.linspace(0, len(members) - 1, min(INNER + 2, len(members)))
        knots.update(members[round(place)] for place in places)
    return tuple(sorted(knots))


def classes(widths: Sequence[int], alignment: int) -> list[list[int]]:
    """The widths that are multiples of `alignment` and the others; one class where that is 1. None is empty."""
    aligned = [width for width in widths if width % alignment == 0]
    others = [width for width in widths if width % alignment]
    return [members for members in (aligned, others) if members]


def further_knots(latencies_ms: Mapping[int, float], alignment: int, tolerance: float) -> dict[int, float]:
    """Widths between knots where linear interpolation may be off by more than `tolerance`, with that estimate.

    The estimate: how far each inner knot lies from the line between its neighbours, relative, over four.
    """
    found: dict[int, float] = {}
    for knots in classes(sorted(latencies_ms), alignment):
        bends = _bends(knots, [latencies_ms[width] for width in knots])
        for i, (left, right) in enumerate(itertools.pairwise(knots)):
            error = max(bends[i], bends[i + 1]) / OF_A_SECTION
            middle = _member_between(left, right, alignment)
            if error > tolerance and middle is not None:
                found[middle] = error
    return found


def _bends(knots: Sequence[int], latencies_ms: Sequence[float]) -> np.ndarray:
    """Of each knot, how far the line between its neighbours is from it, relative; 0 at the ends."""
    widths, values, bends = np.asarray(knots, float), np.asarray(latencies_ms), np.zeros(len(knots))
    if len(knots) > 2:
        share = (widths[1:-1] - widths[:-2]) / (widths[2:] - widths[:-2])
        line = values[:-2] + share * (values[2:] - values[:-2])
        bends[1:-1] = abs(line / values[1:-1] - 1.0)
    return bends


def _member_between(left: int, right: int, alignment: int) -> int | None:
    """The width of the same class nearest to the middle; None when there is none between."""
    same = [w for w in range(left + 1, right) if (w % alignment == 0) == (left % alignment == 0)]
    return min(same, key=lambda width: abs(2 * width - left - right)) if same else None
