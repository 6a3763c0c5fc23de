"""Finding out which widths a device favors: every 4th, 8th or 16th may be faster than those around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

ALIGNMENTS = (2, 4, 8, 16)
PLACES = (0, 1, 2, 4, 7, 8, 12)  # widths compared of every 16: all alignments have members, and so have the others
STRETCHES = 5  # of 16 widths each, at most
LEAST_GAIN = 0.02  # of a multiple over its neighbors, in one operation at least; below it one class is enough
LEAST_EXPLAINED = 0.1  # of what a straight line leaves, on average over the operations


def widths_to_compare(low: int, high: int) -> list[int]:
    """Neighboring widths around the middle of a range; none where it has no two stretches of 16."""
    first, last = -(-low // 16), (high + 1) // 16
    if last - first < 2:
        return []
    count = min(STRETCHES, last - first)
    start = (first + last - count) // 2
    return [16 * stretch + place for stretch in range(start, start + count) for place in PLACES]


def find_alignment(curves: Sequence[Mapping[int, float]]) -> int:
    """The alignment that explains best how latencies differ from a line; 1 where none does.

    Each operation counts alike, and by medians: the gain may be a fifth in one layer and nothing in another, and a
    disturbed measurement outweighs neither.

    Args:
        curves: of a few operations, latency by width, over neighboring widths.
    """
    if not curves:
        return 1
    straight = [_fit(curve, None)[0] for curve in curves]
    best, least = 1, 1.0 - LEAST_EXPLAINED
    for alignment in ALIGNMENTS:
        fits = [_fit(curve, alignment) for curve in curves]
        left = float(np.mean([error / before for (error, _), before in zip(fits, straight, strict=True)]))
        if left < least and max(gain for _, gain in fits) > LEAST_GAIN:
            best, least = alignment, left
    return best


def _fit(curve: Mapping[int, float], alignment: int | None) -> tuple[float, float]:
    """Mean absolute error of log latency = a + b width - gain [width is aligned], and the gain."""
    widths, logs = np.array(list(curve), float), np.log(list(curve.values()))
    aligned = np.zeros(len(widths), bool) if alignment is None else widths % alignment == 0
    slope, level = _line(widths[~aligned], logs[~aligned])
    beyond = logs - (level + slope * widths)
    gain = -float(np.median(beyond[aligned])) if aligned.any() else 0.0
    return float(abs(beyond + gain * aligned).mean()) + 1e-12, gain


def _line(widths: np.ndarray, logs: np.ndarray) -> tuple[float, float]:
    """Theil and Sen's line."""
    first, second = np.triu_indices(len(widths), 1)
    slope = float(np.median((logs[second] - logs[first]) / (widths[second] - widths[first])))
    return slope, float(np.median(logs - slope * widths))
