"""What the sum of Eq. 4 misses, as a correction: a network's latency = scale x sum + offset.

Affine and no more: what is left after it (about 1 %) is no larger than the noise of measuring a network, so a
correction with more freedom would fit that noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tfnas.latency.table import Curve, LatencyTable

FEWEST = 8  # networks: four to fit with, four to look at
SCALES = (0.5, 2.0)  # a correction beyond is no correction: something else is wrong


@dataclass(frozen=True)
class Calibration:
    """A correction and what it is worth, on networks that it was not fitted to."""

    scale: float
    offset_ms: float
    fitted_networks: int
    unseen_networks: int
    error_before_percent: float  # mean absolute error of the plain sum, unseen networks
    error_after_percent: float

    def as_details(self, *, applied: bool) -> dict[str, Any]:
        """As it stands in a table's details."""
        return {**asdict(self), "applied": applied}


def fit_calibration(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> Calibration | None:
    """Fit scale and offset on every second network, by relative error; the others say how good it is.

    Theil and Sen's slope, so that one disturbed network has no weight. None where there are too few networks, or
    the correction lies beyond a factor of two.
    """
    sums, measured = np.asarray(sums_ms, float), np.asarray(measured_ms, float)
    if len(sums) < FEWEST:
        return None
    fitted, unseen = np.arange(len(sums)) % 2 == 0, np.arange(len(sums)) % 2 == 1
    scale, offset_ms = _theil_sen(sums[fitted], measured[fitted])
    corrected = scale * sums + offset_ms
    if not SCALES[0] < scale < SCALES[1] or (corrected <= 0).any():
        return None
    return Calibration(
        scale=scale,
        offset_ms=offset_ms,
        fitted_networks=int(fitted.sum()),
        unseen_networks=int(unseen.sum()),
        error_before_percent=_error_percent(sums[unseen], measured[unseen]),
        error_after_percent=_error_percent(corrected[unseen], measured[unseen]),
    )


def _theil_sen(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    first, second = np.triu_indices(len(x), 1)
    apart = x[first] != x[second]
    if not apart.any():
        return 1.0, float(np.median(y - x))
    slopes = (y[second] - y[first])[apart] / (x[second] - x[first])[apart]
    slope = float(np.median(slopes))
    return slope, float(np.median(y - slope * x))


def _error_percent(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(100.0 * abs(predicted / measured - 1.0).mean())


def apply_calibration(table: LatencyTable, calibration: Calibration) -> LatencyTable:
    """The table whose sums are corrected: every latency times the scale, the offset in its base.

    A base below zero is right where the sum is too large by a constant.
    """
    scale = calibration.scale
    return replace(
        table,
        base_ms=scale * table.base_ms + calibration.offset_ms,
        curves={key: _scaled(curve, scale) for key, curve in table.curves.items()},
        details={**table.details, "calibration": calibration.as_details(applied=True)},
    )


def _scaled(curve: Curve, scale: float) -> Curve:
    return replace(
        curve,
        latencies_ms=tuple(scale * ms for ms in curve.latencies_ms),
        spreads_ms=tuple(scale * ms for ms in curve.spreads_ms),
    )
