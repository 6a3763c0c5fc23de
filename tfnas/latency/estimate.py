"""From visits to latencies: drift removed, outliers dropped, and the uncertainty of the rest.

V visits, P points. The model: log of a latency = the point's level + the offset of the visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfnas.latency.tours import NETWORK, Point, Visit

SIGMA = 1.4826  # a normal distribution's standard deviation, in median absolute deviations
MEDIAN_ERROR = 1.2533  # standard error of a median, in standard errors of a mean
OUTLIER_SIGMAS, OUTLIER_LEAST = 5.0, 0.05  # an outlier is further off than both of them
ROUNDS = 3  # of alternating between levels and offsets; more change nothing


@dataclass(frozen=True)
class Estimate:
    """What the visits say about one point."""

    latency_ms: float
    spread_ms: float  # interquartile range of its visits, drift taken out
    uncertainty: float  # half width of the 95 % confidence interval of the median, relative; infinite below 3 visits
    visits: int  # without outliers
    outliers: int


@dataclass(frozen=True)
class Estimates:
    points: dict[Point, Estimate]
    drift: np.ndarray  # (V,) relative slowness of the machine at each visit, 0 at the median


def estimate(visits: Sequence[Visit]) -> Estimates:
    """Levels and offsets by taking medians in turn (Tukey's median polish).

    The fixed parts are in every tour and are the anchors: they alone give the first offsets. A visit of a whole
    network takes the offset of the tours around it.
    """
    index: dict[Point, int] = {}
    rows, columns, values = [], [], []
    for number, visit in enumerate(visits):
        for point, ms in zip(visit.points, visit.latencies_ms, strict=True):
            if np.isfinite(ms):
                rows.append(number)
                columns.append(index.setdefault(point, len(index)))
                values.append(np.log(ms))
    if not index:
        return Estimates({}, np.zeros(len(visits)))
    row, column, value = np.array(rows, int), np.array(columns, int), np.array(values, float)
    offsets = _offsets(index, visits, row, column, value)
    residual_of_point = _grouped(value - offsets[row], column, len(index))
    points = {point: _summary(residual_of_point[place]) for point, place in index.items()}
    return Estimates(points, np.exp(offsets) - 1.0)


def _offsets(
    index: dict[Point, int], visits: Sequence[Visit], row: np.ndarray, column: np.ndarray, value: np.ndarray
) -> np.ndarray:
    counts = np.bincount(column, minlength=len(index))
    anchors = np.array([isinstance(point[0], str) and point[0] != NETWORK for point in index], bool)
    is_tour = np.array([visit.points[0][0] != NETWORK for visit in visits], bool)
    offsets = np.zeros(len(visits))
    for number in range(ROUNDS):
        levels = np.array([np.median(group) for group in _grouped(value - offsets[row], column, len(index))])
        trusted = anchors if number == 0 else anchors | (counts >= 3)
        use = trusted[column] & is_tour[row]
        groups = _grouped((value - levels[column])[use], row[use], len(visits))
        known = np.array([len(group) > 0 for group in groups], bool)
        if not known.any():
            break
        found = np.array([np.median(group) for group in groups if len(group)])
        offsets = np.interp(np.arange(len(visits)), np.flatnonzero(known), found - np.median(found))
    return offsets


def _grouped(values: np.ndarray, group: np.ndarray, count: int) -> list[np.ndarray]:
    order = np.argsort(group, kind="stable")
    return np.split(values[order], np.searchsorted(group[order], np.arange(1, count)))


def _summary(logs: np.ndarray) -> Estimate:
    median = float(np.median(logs))
    sigma = SIGMA * float(np.median(abs(logs - median)))
    kept = logs[abs(logs - median) <= max(OUTLIER_SIGMAS * sigma, OUTLIER_LEAST)] if len(logs) > 2 else logs
    latency_ms = float(np.exp(np.median(kept)))
    low, high = np.quantile(kept, (0.25, 0.75))
    sure = len(kept) > 2
    error = 1.96 * MEDIAN_ERROR * SIGMA * float(np.median(abs(kept - np.median(kept)))) / np.sqrt(len(kept))
    return Estimate(
        latency_ms=latency_ms,
        spread_ms=latency_ms * float(high - low),
        uncertainty=float(error) if sure else float("inf"),
        visits=len(kept),
        outliers=len(logs) - len(kept),
    )
