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

FEWEST = 8  # networks
BOUNDS = (0.5, 2.0)  # of the scale, and of what any network's latency is multiplied by; beyond, something else is wrong
CONFIDENCE = 0.95  # one-sided, that the correction helps


@dataclass(frozen=True)
class Calibration:
    """A correction and its benefit, cross-validated: each network is judged by the fit to all the others."""

    scale: float
    offset_ms: float
    fitted_networks: int
    error_before_percent: float  # mean absolute error of the plain sum, relative to the measured latency
    error_after_percent: float  # cross-validated
    least_gain_percent: float  # of the first over the second, with `CONFIDENCE`

    @property
    def helps(self) -> bool:
        """Whether it improves networks that it was not fitted to, by more than chance."""
        return self.least_gain_percent > 0.0

    def as_details(self, *, applied: bool) -> dict[str, Any]:
        """As recorded in a table's details."""
        return {**asdict(self), "applied": applied}


def fit_calibration(
    sums_ms: Sequence[float], measured_ms: Sequence[float], *, fastest_ms: float | None = None
) -> Calibration | None:
    """Fit scale and offset by Theil and Sen's line, a median of absolute slopes: one disturbed network has no weight.

    Where that line would multiply the latency of the space's fastest network by less than a half (or make it
    negative) or by more than two, the scale alone is fitted. None where there are too few networks, or that is
    beyond a factor of two as well.

    Args:
        fastest_ms: the sum of the fastest network of the space; default the fastest given.
    """
    sums, measured = np.asarray(sums_ms, float), np.asarray(measured_ms, float)
    if len(sums) < FEWEST:
        return None
    judged = np.append(sums, sums.min() if fastest_ms is None else fastest_ms)
    for fit in (_theil_sen, _factor):
        scale, offset_ms = fit(sums, measured)
        factors = scale + offset_ms / judged
        if BOUNDS[0] < min(scale, factors.min()) and max(scale, factors.max()) < BOUNDS[1]:
            break
    else:
        return None
    before = _errors_percent(sums, measured)
    after = _errors_percent(_by_the_others(fit, sums, measured), measured)
    return Calibration(
        scale=scale,
        offset_ms=offset_ms,
        fitted_networks=len(sums),
        error_before_percent=float(before.mean()),
        error_after_percent=float(after.mean()),
        least_gain_percent=_least_mean(before - after),
    )


def _by_the_others(fit: Any, sums: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Corrected latencies, of each network by the fit to the others."""
    corrected = np.empty_like(sums)
    for i in range(len(sums)):
        others = np.arange(len(sums)) != i
        scale, offset_ms = fit(sums[others], measured[others])
        corrected[i] = scale * sums[i] + offset_ms
    return corrected


def _least_mean(gains: np.ndarray) -> float:
    """Lower bound of the mean, one-sided, by Student's t."""
    from scipy.stats import t

    quantile = float(t.ppf(CONFIDENCE, len(gains) - 1))
    return float(gains.mean() - quantile * gains.std(ddof=1) / np.sqrt(len(gains)))


def _theil_sen(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    first, second = np.triu_indices(len(x), 1)
    apart = x[first] != x[second]
    if not apart.any():
        return 1.0, float(np.median(y - x))
    slopes = (y[second] - y[first])[apart] / (x[second] - x[first])[apart]
    slope = float(np.median(slopes))
    return slope, float(np.median(y - slope * x))


def _factor(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    return float(np.median(y / x)), 0.0


def _errors_percent(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    return 100.0 * abs(predicted / measured - 1.0)


def apply_calibration(table: LatencyTable, calibration: Calibration) -> LatencyTable:
    """The table whose sums are corrected: every latency times the scale, the offset in its base.

    The base may be below zero, where the sum is too large by a constant; no network's latency is.
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
