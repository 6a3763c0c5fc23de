"""Whole networks against the table: how far the sum of Eq. 4 is from the measured latency, and the correction of it.

The correction is a network's latency = scale x sum + offset. Affine and no more: what is left after it (about 1 %) is
no larger than the noise of measuring a network, so a correction with more freedom would fit that noise.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfnas.compute.seeding import derive_seed
from tfnas.jobs.artifacts import write_text
from tfnas.jobs.errors import UserError
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.table import LatencyTable
from tfnas.space import Architecture, Candidate, Space, zoo
from tfnas.space.membership import assemble, violations

if TYPE_CHECKING:
    from tfnas.latency.backends import Backend
    from tfnas.latency.backends.registry import Stopwatch
    from tfnas.latency.timing import Probe, Timing

VALIDATED = ("table_ms", "measured_ms", "unseen_ms")  # columns of validation.csv, after the network's name
WITHIN_PERCENT = (5, 10)  # of the measured latency: the hit rates that nn-Meter, LitePred and HELP report
SPREAD = 0.25  # standard deviation of one choice around the size of a random network
AT_AN_END = 0.5  # of a random network's stages: their widths are at an end of their range
FEWEST_FOR_INTERVAL = 5  # networks
RESAMPLES = 4000
FEWEST_FOR_FIT = 8  # networks
BOUNDS = (0.5, 2.0)  # of the scale, and of what any network's latency is multiplied by; beyond, something else is wrong
CONFIDENCE = 0.95  # one-sided, that the correction helps

Fit = Callable[[np.ndarray, np.ndarray], tuple[float, float]]  # of sums and measured latencies: scale, offset in ms


class Validated(NamedTuple):
    """One network, by the table and end to end."""

    network: str
    table_ms: float
    measured_ms: float
    unseen_ms: float | None = None  # by the table as corrected without this network; None: it was not fitted to it

    @property
    def predicted_ms(self) -> float:
        """By a table that has not seen the network."""
        return self.table_ms if self.unseen_ms is None else self.unseen_ms

    @property
    def is_published(self) -> bool:
        """Whether it is a network of the paper; no correction is fitted to those."""
        return self.network in zoo.names()


def validation_networks(space: Space, count: int, seed: int) -> list[Architecture]:
    """Random members of the space, from nearly the smallest to nearly the largest."""
    random = np.random.default_rng(derive_seed(seed, "validation_networks"))
    return [random_architecture(space, f"random-{i}", random) for i in range(1, count + 1)]


def random_architecture(space: Space, name: str, random: np.random.Generator) -> Architecture:
    """A random network of a random size, around which its depths, candidates and widths are drawn.

    Drawn uniformly, they would average out, and no network would come near the smallest or the largest. In some stages
    every width is at an end of its range, as in TF-NAS-C, TF-NAS-CPU-A and TF-NAS-CPU-B: such widths are multiples of 8
    or 16 channels, which a device may favor and random widths rarely are.
    """
    size = random.random()

    def share() -> float:
        return float(np.clip(random.normal(size, SPREAD), 0.0, 1.0))

    candidates = sorted(space.candidates, key=lambda candidate: candidate.expand_range)
    choices: dict[int, list[tuple[Candidate, int]]] = {}
    for stage in space.searchable_stages:
        choices[stage.stage] = []
        at_an_end = random.random() < AT_AN_END
        for position in range(_between(stage.min_depth, stage.max_depth, share())):
            candidate = candidates[_between(0, len(candidates) - 1, share())]
            widths = candidate.widths(stage.out_channels if position else stage.in_channels)
            width_share = share()
            place = _between(0, len(widths) - 1, round(width_share) if at_an_end else width_share)
            choices[stage.stage].append((candidate, widths[place]))
    return assemble(space, name, choices)


def _between(low: int, high: int, share: float) -> int:
    """One of low to high, each equally often for evenly spread shares."""
    return min(high, low + int(share * (high - low + 1)))


def published_members(space: Space) -> list[Architecture]:
    """The networks of the paper that lie inside the space."""
    return [network for network in map(zoo.load, zoo.names()) if not any(violations(network, space))]


def validated(
    table: LatencyTable,
    networks: Sequence[Architecture],
    networks_ms: Sequence[float],
    *,
    unseen_ms: Sequence[float] = (),
) -> list[Validated]:
    """The table's latencies of networks next to the measured ones.

    Args:
        unseen_ms: of the first networks, those that the table's correction was fitted to: by the fit to the others.
    """
    rest = [None] * (len(networks) - len(unseen_ms))
    return [
        Validated(network.name, table.latency_ms(network), measured_ms, unseen)
        for network, measured_ms, unseen in zip(networks, networks_ms, [*unseen_ms, *rest], strict=True)
    ]


def time_networks(
    networks: Sequence[Architecture],
    params: ProfileLatencyParams,
    *,
    resolution: int,
    repeats: int,
    seed: int,
    backend: Backend | None = None,
    stopwatch: Stopwatch | None = None,
) -> list[Timing]:
    """The latency of each network, measured end to end on the device, batch and threads of `params`.

    Raises:
        UserError: the device is absent.
    """
    from tfnas.latency.measuring import network_probe

    probes = [network_probe(network, resolution, params.num_classes, params.batch_size) for network in networks]
    return time_modules(probes, params, repeats=repeats, seed=seed, backend=backend, stopwatch=stopwatch)


def time_modules(
    probes: Sequence[Probe],
    params: ProfileLatencyParams,
    *,
    repeats: int,
    seed: int,
    backend: Backend | None = None,
    stopwatch: Stopwatch | None = None,
) -> list[Timing]:
    """The same of any modules, each with the shape of its input.

    Raises:
        UserError: the device is absent.
    """
    from tfnas.compute.devices import find_device
    from tfnas.latency.backends import BackendOptions, open_backend, stopwatch_of
    from tfnas.latency.timing import Timer, measuring, time_probes

    device = find_device(params.device, source="profile_latency.device:")
    backend = backend or open_backend(params.backend, BackendOptions.of(params))
    with measuring(params.threads):
        timings = time_probes(
            dict(enumerate(probes)),
            timer=Timer(device, params.warmup_runs, stopwatch or stopwatch_of(backend)),
            backend=backend,
            repeats=repeats,
            seed=derive_seed(seed, "time_networks"),
            label="networks",
        )
    return [timings[index] for index in range(len(probes))]


def measure_architecture_ms(
    architecture: Architecture, params: ProfileLatencyParams, *, resolution: int, repeats: int
) -> Timing:
    """The latency of one network, measured end to end on the device, batch and threads of `params`.

    Raises:
        UserError: the device or the backend is absent.
    """
    return time_networks([architecture], params, resolution=resolution, repeats=repeats, seed=0)[0]


def validation_metrics(rows: Sequence[Validated]) -> dict[str, float]:
    """Errors of the table on random networks, and on published ones under the same names after `published_`.

    Percent of the measured latency, the shares of networks within 5 % and 10 % of it, and rank correlations
    (Spearman's, Kendall's). Each network is judged by the table as corrected without it. Numbers that do not exist (no
    network, or all of one latency) are omitted.
    """
    random = [row for row in rows if not row.is_published]
    published = _group_metrics([row for row in rows if row.is_published])
    return {**_group_metrics(random), **{f"published_{name}": value for name, value in published.items()}}


def _group_metrics(rows: Sequence[Validated]) -> dict[str, float]:
    if not rows:
        return {}
    from scipy.stats import kendalltau, spearmanr

    predicted_ms = np.array([row.predicted_ms for row in rows])
    measured_ms = np.array([row.measured_ms for row in rows])
    percent = 100.0 * (predicted_ms / measured_ms - 1.0)
    metrics = {"mean_absolute_percentage_error": float(abs(percent).mean()), "bias_percent": float(percent.mean())}
    if len(rows) >= FEWEST_FOR_INTERVAL:
        low, high = mean_interval(abs(percent))
        metrics |= {"mean_absolute_percentage_error_low": low, "mean_absolute_percentage_error_high": high}
    metrics |= _hit_rates(percent)
    if len(set(predicted_ms)) > 1 and len(set(measured_ms)) > 1:
        metrics["spearman"] = float(spearmanr(predicted_ms, measured_ms).statistic)
        metrics["kendall"] = float(kendalltau(predicted_ms, measured_ms).statistic)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _hit_rates(percent: np.ndarray) -> dict[str, float]:
    """Shares of networks within each of `WITHIN_PERCENT`, in percent, with 95 % intervals."""
    rates: dict[str, float] = {}
    for limit in WITHIN_PERCENT:
        hits, name = int((abs(percent) <= limit).sum()), f"within_{limit}_percent"
        rates[name] = 100.0 * hits / len(percent)
        if len(percent) >= FEWEST_FOR_INTERVAL:
            rates[f"{name}_low"], rates[f"{name}_high"] = share_interval(hits, len(percent))
    return rates


def hit_rates_text(metrics: Mapping[str, float], prefix: str = "") -> str:
    """The hit rates as words, for a reader: `97 % are within 5 %, 100 % within 10 %`."""
    first, *more = ((metrics[f"{prefix}within_{limit}_percent"], limit) for limit in WITHIN_PERCENT)
    return ", ".join([f"{first[0]:.0f} % are within {first[1]} %", *(f"{rate:.0f} % within {n} %" for rate, n in more)])


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share over such networks, in percent (E. B. Wilson, JASA 22, 1927).

    No bootstrap: 32 hits of 32 would be certain by it, as each of its samples has only hits.
    """
    from scipy.stats import binomtest

    found = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return 100.0 * float(found.low), 100.0 * float(found.high)


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over such networks, on this machine in these minutes.

    Percentiles of the resampled means, widened as Student's t is against the normal distribution: a plain bootstrap
    of ten values is too confident (T. Hesterberg, The American Statistician 69, 2015, Sec. 5.3).
    """
    from scipy.stats import norm, t

    count = len(values)
    tail = float(norm.cdf(math.sqrt(count / (count - 1)) * t.ppf(0.025, count - 1)))
    means = values[np.random.default_rng(0).integers(count, size=(RESAMPLES, count))].mean(1)
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return float(low), float(high)


def write_validation(rows: Sequence[Validated], path: str | Path) -> None:
    """Write validation.csv: network, table_ms, measured_ms, unseen_ms (by the table as corrected without it)."""
    lines = [",".join(("network", *VALIDATED))]
    lines += [f"{row.network},{row.table_ms:.6f},{row.measured_ms:.6f},{row.predicted_ms:.6f}" for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_validation(path: str | Path) -> list[Validated]:
    """The rows of a validation.csv; an old one has no unseen_ms.

    Raises:
        UserError: missing, or damaged.
    """
    try:
        with Path(path).open(newline="") as file:
            return [
                Validated(
                    row["network"],
                    float(row["table_ms"]),
                    float(row["measured_ms"]),
                    float(row["unseen_ms"]) if "unseen_ms" in row else None,
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a validation ({error}); run profile_latency again") from None


@dataclass(frozen=True)
class Calibration:
    """A correction and its benefit, cross-validated: each network is judged by the fit to all the others."""

    scale: float
    offset_ms: float
    fitted_networks: int
    error_before_percent: float  # mean absolute error of the plain sum, relative to the measured latency
    error_after_percent: float  # cross-validated
    least_gain_percent: float  # of the first over the second, with `CONFIDENCE`
    unseen_ms: tuple[float, ...]  # each network's latency by the fit to all the others

    @property
    def helps(self) -> bool:
        """Whether it improves networks that it was not fitted to, by more than chance."""
        return self.least_gain_percent > 0.0

    def as_details(self, *, applied: bool) -> dict[str, Any]:
        """As recorded in a table's details, without the networks one by one."""
        return {name: value for name, value in asdict(self).items() if name != "unseen_ms"} | {"applied": applied}


def fit_calibration(
    sums_ms: Sequence[float],
    measured_ms: Sequence[float],
    *,
    fastest_ms: float | None = None,
    fewest: int = FEWEST_FOR_FIT,
) -> Calibration | None:
    """Fit scale and offset by Theil and Sen's line, a median of absolute slopes: one disturbed network has no weight.

    The offset is held where the line multiplies the latency of the space's fastest network by at least a half and by
    at most two. Where the scale is not between them, or the line is not shown to help, the scale alone is fitted: a few
    networks show that sums are a fifth too long well before they show a line. None where there are too few networks,
    or that is beyond a factor of two as well.

    Args:
        fastest_ms: the sum of the fastest network of the space; default the fastest given.
        fewest: networks to fit it to.
    """
    sums, measured = np.asarray(sums_ms, float), np.asarray(measured_ms, float)
    if len(sums) < fewest:
        return None
    fastest = float(min(sums.min(), math.inf if fastest_ms is None else fastest_ms))
    found = [_calibration(fit, sums, measured) for fit in (partial(_theil_sen, fastest=fastest), _factor)]
    within = [calibration for calibration in found if BOUNDS[0] < calibration.scale < BOUNDS[1]]
    return next((calibration for calibration in within if calibration.helps), within[0] if within else None)


def _calibration(fit: Fit, sums: np.ndarray, measured: np.ndarray) -> Calibration:
    scale, offset_ms = fit(sums, measured)
    unseen_ms = _by_the_others(fit, sums, measured)
    before, after = _errors_percent(sums, measured), _errors_percent(unseen_ms, measured)
    return Calibration(
        scale=scale,
        offset_ms=offset_ms,
        fitted_networks=len(sums),
        error_before_percent=float(before.mean()),
        error_after_percent=float(after.mean()),
        least_gain_percent=_least_mean(before - after),
        unseen_ms=tuple(unseen_ms.tolist()),
    )


def _by_the_others(fit: Fit, sums: np.ndarray, measured: np.ndarray) -> np.ndarray:
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


def _theil_sen(x: np.ndarray, y: np.ndarray, *, fastest: float) -> tuple[float, float]:
    """Scale and offset, the offset where `fastest` is multiplied by a number within the bounds."""
    first, second = np.triu_indices(len(x), 1)
    apart = x[first] != x[second]
    slope = float(np.median((y[second] - y[first])[apart] / (x[second] - x[first])[apart])) if apart.any() else 1.0
    least, most = ((bound - slope) * fastest for bound in BOUNDS)
    return slope, float(np.clip(np.median(y - slope * x), least, most))


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
        curves={key: curve.scaled(scale) for key, curve in table.curves.items()},
        details={**table.details, "calibration": calibration.as_details(applied=True)},
    )
