"""Another device's table adapted to this one by a few samples, in seconds instead of minutes.

A *sample* is a tour (one operation of every layer, in a network's order) or a whole network, in turn. The source's
curves keep their shape. Of each point (an operation at a width) of the tours, the log of measured over source latency
is

    level + kernel + stride + squeeze-and-excitation + activation + resolution + operation + slope x log(width)

and at favored widths also

    favored + its kernel + its operation + its slope x log(width),

fitted by ridge regression. The slopes are there because devices differ in what a call costs whatever its width. The
level is free; all other terms are drawn to 0, as strongly as cross-validation over the points finds best. So an
operation that was not measured gets the factor of its family, and one that was, its own, as far as the data say. Where
the device favors other widths than the source's, its own alignment takes the place of the source's. The fixed parts are
in every tour, so they are measured and not adapted. Whole networks then correct the sum, as in a profile
(`tfnas.latency.validation`).

P points, T terms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tfnas.compute.seeding import derive_seed
from tfnas.jobs.progress import ProgressBar
from tfnas.latency.measuring import Measuring, fixed_parts
from tfnas.latency.profiler import how_measured, operation_ranges
from tfnas.latency.table import FIXED_PARTS, Curve, LatencyTable, OperationKey
from tfnas.latency.tours import ALIGNMENTS, NETWORK, Estimates, Point, Slot, estimate, network_visit, tour_slots
from tfnas.space import Architecture, Space

LEAST_SAMPLES = 5  # whatever the budget
FEWEST_NETWORKS = 3  # to correct the sum by
STRENGTHS = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)  # of the ridge, compared
FOLDS = 10
LEAST_EXPLAINED = 0.1  # of the error with the source's alignment, by another one that takes its place
GOLDEN = 0.6180339887  # multiples of it, modulo 1, are spread evenly however many there are
TYPICAL_WIDTH, SLOPE = 64, "slope"  # where a slope is 0; its name
ADAPTED_FROM = "adapted_from"  # in the details: the source, the samples and the error

Ranges = Mapping[OperationKey, tuple[int, int]]
Term = tuple[str, object]


class Adapted(NamedTuple):
    """A table, and the whole networks that were measured for it: their number, the first ones, and latencies."""

    table: LatencyTable
    networks_ms: list[float]


class Observed(NamedTuple):
    """One point as measured on the target device."""

    key: OperationKey
    width: int
    latency_ms: float
    visits: int


def adapt_table(
    source: LatencyTable,
    space: Space,
    measuring: Measuring,
    *,
    networks: Sequence[Architecture],
    samples: int | None = None,
    seed: int = 0,
) -> Adapted:
    """Measure samples until the budget of `measuring` is spent, and adapt the source's table by them.

    Args:
        source: of the same space and resolution, from any device.
        networks: to measure whole, in this order; see `spread_by_latency`.
        samples: at most; None: only the budget ends it. `LEAST_SAMPLES` are measured in any case.

    Raises:
        UserError: the source does not fit the space, or the machine is too busy to measure on.
    """
    source.check_fits(space, measuring.resolution, source="the source table")
    params = measuring.params
    parts = fixed_parts(space, measuring.resolution, params.num_classes, params.batch_size)
    slots, ranges = tour_slots(space, measuring.resolution, list(parts)), operation_ranges(space, measuring.resolution)
    with measuring.session(parts, networks):
        _measure(measuring, plan_samples(slots, ranges, len(networks), seed), samples)
    found = estimate(measuring.visits)
    table = _table(source, space, measuring, ranges, list(parts), found)
    measured = [point for point in ((NETWORK, number) for number in range(len(networks))) if point in found.points]
    return Adapted(table, [found.points[point].latency_ms for point in measured])


def spread_by_latency(networks: Sequence[Architecture], table: LatencyTable) -> list[Architecture]:
    """The networks in an order in which the first few, however many, are spread over the range of latencies."""
    ordered = sorted(networks, key=table.latency_ms)
    places = sorted(range(len(ordered)), key=lambda number: (number + 1) * GOLDEN % 1.0)
    order = np.argsort(places)  # the network that is measured n-th is at the rank of the n-th multiple
    return [ordered[place] for place in order]


def plan_samples(slots: Sequence[Slot], ranges: Ranges, networks: int, seed: int) -> Iterator[tuple[Point, ...]]:
    """Whole networks and tours in turn, without end.

    Tours go round all operations of each layer before one comes again. An operation's widths are spread over its range,
    and every second one is a multiple of 16, which a device may favor.
    """
    random = np.random.default_rng(derive_seed(seed, "adapt_table"))
    queues: dict[Slot, list[OperationKey]] = {}
    widths = {key: _widths(*limits, random) for key, limits in ranges.items()}
    for number in itertools.count():
        if networks:
            yield network_visit(slots, number % networks)
        yield tuple((slot, 0) if isinstance(slot, str) else _next(slot, queues, widths, random) for slot in slots)


def _next(
    slot: tuple[OperationKey, ...],
    queues: dict[Slot, list[OperationKey]],
    widths: Mapping[OperationKey, Iterator[int]],
    random: np.random.Generator,
) -> Point:
    if not queues.get(slot):
        queues[slot] = [slot[index] for index in random.permutation(len(slot))]
    key = queues[slot].pop()
    return key, next(widths[key])


def _widths(low: int, high: int, random: np.random.Generator) -> Iterator[int]:
    start = random.random()
    for number in itertools.count():
        width = low + int((start + number * GOLDEN) % 1.0 * (high - low + 1))
        multiple = round(width / 16) * 16
        yield multiple if number % 2 and low <= multiple <= high else width


def _measure(measuring: Measuring, plan: Iterator[tuple[Point, ...]], samples: int | None) -> None:
    budget = 60.0 * measuring.params.minutes
    progress = ProgressBar("adapt", budget, "second")
    progress.advance(min(measuring.seconds, budget))
    left = itertools.islice(plan, len(measuring.visits), None)
    first = list(itertools.islice(left, max(0, (samples or LEAST_SAMPLES) - len(measuring.visits))))
    measuring.convert(point for points in first for point in points)
    for points in itertools.chain(first, left):
        taken = len(measuring.visits)
        if taken >= LEAST_SAMPLES and (measuring.seconds >= budget or (samples is not None and taken >= samples)):
            break
        before = measuring.seconds
        measuring.visit(points)
        progress.advance(measuring.seconds - before)
    progress.close()


def _table(
    source: LatencyTable, space: Space, measuring: Measuring, ranges: Ranges, parts: list[str], found: Estimates
) -> LatencyTable:
    points = [
        Observed(key, width, point.latency_ms, point.visits)
        for (key, width), point in found.points.items()
        if isinstance(key, OperationKey)
    ]
    factors = fit_factors(source, points)
    parts_ms = {name: found.points[name, 0].latency_ms for name in parts}
    adapted_from = {**_described(source), **_samples(measuring), **factors.as_details(len(points))}
    return LatencyTable(
        space=space.name,
        resolution=measuring.resolution,
        batch_size=measuring.params.batch_size,
        device=measuring.device_name,
        base_ms=sum(parts_ms.values()),
        curves={key: factors.curve(key, source.curve(key)) for key in ranges},
        fixed_stages=source.fixed_stages,
        details={
            **how_measured(measuring, found, parts_ms),
            FIXED_PARTS: space.fixed_content(),
            ADAPTED_FROM: adapted_from,
        },
    )


def _described(source: LatencyTable) -> dict[str, Any]:
    """What a reader needs to know of the source."""
    names = ("backend", "backend_version", "precision", "threads", "measured_at")
    known = {name: source.details[name] for name in names if name in source.details}
    return {"device": source.device, "batch_size": source.batch_size, **known}


def _samples(measuring: Measuring) -> dict[str, int]:
    whole = sum(not visit.is_tour for visit in measuring.visits)
    return {"samples": len(measuring.visits), "networks": whole, "tours": len(measuring.visits) - whole}


@dataclass(frozen=True)
class Factors:
    """Of the source's latencies, in logarithms: target = source x exp(level + the terms of the point)."""

    level: float
    effects: Mapping[Term, float]  # of the terms, each times its value at the point
    alignment: int  # of the target device's widths
    strength: float  # of the ridge
    error_percent: float  # mean absolute, over points left out of the fit

    def curve(self, key: OperationKey, source: Curve) -> Curve:
        """The source's curve of an operation, adapted."""
        shape = source.reclassed(self.alignment)
        logs = [
            self.level
            + sum(self.effects.get(term, 0.0) * value for term, value in terms(key, width, self.alignment).items())
            for width in shape.widths
        ]
        return shape.scaled(np.exp(logs))

    def as_details(self, points: int) -> dict[str, Any]:
        """As recorded in the adapted table's details."""
        return {
            "points": points,
            "point_error_percent": self.error_percent,
            "level": float(np.exp(self.level)),
            "ridge_strength": self.strength,
        }


def terms(key: OperationKey, width: int, alignment: int) -> dict[Term, float]:
    """What the ratio of two devices' latencies of a point may depend on: 1 of a kind, or the log of the width."""
    log_width = math.log(width / TYPICAL_WIDTH)
    found: dict[Term, float] = {
        ("kernel", key.kernel): 1.0,
        ("stride", key.stride): 1.0,
        ("squeeze-and-excitation", key.se_channels > 0): 1.0,
        ("activation", key.act): 1.0,
        ("resolution", key.resolution): 1.0,
        ("operation", key): 1.0,
        ("width", SLOPE): log_width,
    }
    if alignment > 1 and width % alignment == 0:
        found |= {
            ("favored width", alignment): 1.0,
            ("favored width, kernel", key.kernel): 1.0,
            ("favored width, operation", key): 1.0,
            ("favored width", SLOPE): log_width,
        }
    return found


def fit_factors(source: LatencyTable, points: Sequence[Observed]) -> Factors:
    """The factors that carry the source's latencies over to the points'.

    The source's alignment is kept unless another one explains the points better by `LEAST_EXPLAINED`.

    Raises:
        UserError: the source has no such operation.
    """
    kept = _fit(source, points, source.alignment)
    others = [_fit(source, points, alignment) for alignment in {1, *ALIGNMENTS} - {source.alignment}]
    best = min(others, key=lambda factors: factors.error_percent)
    return best if best.error_percent < (1.0 - LEAST_EXPLAINED) * kept.error_percent else kept


def _fit(source: LatencyTable, points: Sequence[Observed], alignment: int) -> Factors:
    shapes = {key: source.curve(key).reclassed(alignment) for key in {point.key for point in points}}
    ratios = np.log([point.latency_ms / float(shapes[point.key].latency_ms(point.width)) for point in points])
    rows = [terms(point.key, point.width, alignment) for point in points]
    names = list(dict.fromkeys(term for row in rows for term in row))
    place = {term: 1 + number for number, term in enumerate(names)}
    design = np.zeros((len(points), 1 + len(names)))  # (P, 1 + T), the level first
    design[:, 0] = 1.0
    for number, row in enumerate(rows):
        design[number, [place[term] for term in row]] = list(row.values())
    weights = np.array([point.visits for point in points], float)
    errors = {strength: _left_out_error(design, ratios, weights, strength) for strength in STRENGTHS}
    strength = min(errors, key=lambda candidate: errors[candidate])
    found = _ridge(design, ratios, weights, strength)
    return Factors(
        level=float(found[0]),
        effects=dict(zip(names, found[1:].tolist(), strict=True)),
        alignment=alignment,
        strength=strength,
        error_percent=errors[strength],
    )


def _ridge(design: np.ndarray, values: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """(1 + T,) that minimizes the weighted squared error plus strength x squared terms; the level is free."""
    penalty = np.full(design.shape[1], strength)
    penalty[0] = 0.0
    scaled = design * (weights / weights.mean())[:, None]
    return np.linalg.solve(scaled.T @ design + np.diag(penalty), scaled.T @ values)


def _left_out_error(design: np.ndarray, values: np.ndarray, weights: np.ndarray, strength: float) -> float:
    """Mean absolute error in percent of the points of each fold, by the fit to the other folds."""
    order = np.random.default_rng(0).permutation(len(values))
    residuals = np.zeros(len(values))
    for number in range(min(FOLDS, len(values))):
        fold = np.zeros(len(values), bool)
        fold[order[number::FOLDS]] = True
        found = _ridge(design[~fold], values[~fold], weights[~fold], strength)
        residuals[fold] = design[fold] @ found - values[fold]
    return 100.0 * float(np.average(abs(np.expm1(residuals)), weights=weights))
