"""Finding out which widths a device favours: every 4th, 8th or 16th may be faster than those around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

ALIGNMENTS = (2, 4, 8, 16)
SPAN = 33  # consecutive widths, so that each alignment has at least two multiples among them
LEAST_GAIN = 0.02  # of a multiple over its neighbours; below it one class is enough
LEAST_EXPLAINED = 0.3  # of what a straight line leaves


def widths_to_compare(low: int, high: int) -> list[int]:
    """`SPAN` consecutive widths in the middle of a range; none where it is narrower."""
    start = (low + high - SPAN + 1) // 2
    return list(range(start, start + SPAN)) if high - low + 1 >= SPAN else []


def find_alignment(curves: Sequence[Mapping[int, float]]) -> int:
    """The alignment that explains best how latencies differ from a line; 1 where none does.

    Args:
        curves: of a few operations, latency by width, over consecutive widths.
    """
    if not curves:
        return 1
    straight = sum(_fit(curve, None)[0] for curve in curves)
    best, least = 1, straight * (1.0 - LEAST_EXPLAINED)
    for alignment in ALIGNMENTS:
        fits = [_fit(curve, alignment) for curve in curves]
        left = sum(error for error, _ in fits)
        if left < least and np.median([gain for _, gain in fits]) > LEAST_GAIN:
            best, least = alignment, left
    return best


def _fit(curve: Mapping[int, float], alignment: int | None) -> tuple[float, float]:
    """Squared error of log latency = a + b width - gain [width is aligned], and the gain."""
    widths, logs = np.array(list(curve), float), np.log(list(curve.values()))
    columns = [np.ones_like(widths), widths - widths.mean()]
    if alignment is not None:
        columns.append(-(widths % alignment == 0).astype(float))
    design = np.stack(columns, 1)
    solution = np.linalg.lstsq(design, logs, rcond=None)[0]
    error = float(((design @ solution - logs) ** 2).sum())
    return error, float(solution[2]) if alignment is not None else 0.0
