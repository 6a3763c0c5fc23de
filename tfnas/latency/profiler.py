"""Measuring the lookup table of a space on a device (Sec. 3.1, Appendices B, G)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfnas.compute.devices import cpu_governor
from tfnas.compute.seeding import derive_seed
from tfnas.jobs.artifacts import package_versions
from tfnas.jobs.progress import ProgressBar
from tfnas.latency.measuring import Measuring, find_device_alignment, fixed_parts
from tfnas.latency.table import FIXED_PARTS, Curve, LatencyTable, OperationKey
from tfnas.latency.tours import (
    NETWORK,
    Estimates,
    Point,
    Slot,
    deal_tours,
    estimate,
    first_knots,
    further_knots,
    network_visit,
    tour_slots,
)
from tfnas.space import Architecture, Space
from tfnas.space.space import shipped_spaces

MIN_VISITS = 3  # of a point, before its uncertainty means anything
NETWORK_VISITS = 6  # at least, of every whole network
MAX_VISITS = 40  # after which a point may stay uncertain
WORTH_ADVICE = 1.25  # a median width that is no multiple takes so many times as long as one that is
GROWTH = 0.15  # new knots per round of refinement, as a share of the present ones

Knots = dict[OperationKey, list[int]]
logger = logging.getLogger("tfnas.latency")


class Grid(NamedTuple):
    """The widths of the space, and the two classes among them."""

    alignment: int  # that the device favors
    multiple: int  # of the space


class Profile(NamedTuple):
    """A table, and the latencies of whole networks in the same minutes."""

    table: LatencyTable
    networks_ms: list[float]  # in the order in which they were given


def profile_space(
    space: Space, measuring: Measuring, *, networks: Sequence[Architecture] = (), seed: int = 0
) -> Profile:
    """Measure every operation of the space, its fixed parts, and whole networks along with them.

    Round by round: points that are new or uncertain are dealt into tours in random order and measured; where a
    line between knots is not within the tolerance, a knot is added. It ends when nothing is uncertain or the
    budget is spent; every first knot is measured in any case. The authors' script times each of 36,480 widths
    alone, 1,100 times. Latencies stay as measured: a wider block may come out faster.

    Args:
        measuring: where and how, and what is measured already.
        networks: whole networks, visited between the tours.

    Raises:
        UserError: the machine is too busy to measure on.
    """
    params, resolution = measuring.params, measuring.resolution
    parts = fixed_parts(space, resolution, params.num_classes, params.batch_size)
    slots = tour_slots(space, resolution, list(parts))
    with measuring.session(parts, networks):
        ranges = operation_ranges(space, resolution)
        alignment = find_device_alignment(measuring, ranges)
        grid = Grid(alignment, space.width_multiple)
        knots = {
            key: list(first_knots(low, high, key.in_channels, alignment, multiple=grid.multiple))
            for key, (low, high) in ranges.items()
        }
        _measure(measuring, slots, knots, grid, networks=len(networks), seed=seed)
    found = estimate(measuring.visits)
    table = _table(space, measuring, knots, list(parts), found, alignment)
    return Profile(table, [found.points[NETWORK, number].latency_ms for number in range(len(networks))])


def operation_ranges(space: Space, resolution: int) -> dict[OperationKey, tuple[int, int]]:
    """Every distinct operation of the space, with its (smallest, largest) width in any candidate.

    k3_e3 and k3_e6 of Table 1 without squeeze-and-excitation are one operation, of 2 to 8 times C_in.
    """
    fixed = {stage.stage for stage in space.stages if stage.fixed is not None}
    ranges: dict[OperationKey, tuple[int, int]] = {}
    for layer in space.layers(resolution):
        for candidate in space.candidates if layer.stage not in fixed else ():
            key = OperationKey.of_candidate(layer, candidate)
            low, high = candidate.width_range(layer.in_channels)
            known_low, known_high = ranges.get(key, (low, high))
            ranges[key] = min(low, known_low), max(high, known_high)
    return ranges


def _measure(
    measuring: Measuring, slots: Sequence[Slot], knots: Knots, grid: Grid, *, networks: int, seed: int
) -> None:
    """Rounds of visits, until the budget is spent or nothing is left to do."""
    budget, tolerance = 60.0 * measuring.params.minutes, measuring.params.tolerance
    progress = ProgressBar("profile", budget, "second")
    progress.advance(min(measuring.seconds, budget))
    every = [(NETWORK, number) for number in range(networks)]
    while True:
        known = estimate(measuring.visits)
        _refine(knots, known, grid, tolerance)
        wanted = [point for point in _points(knots) if _wants(point, known, tolerance)]
        wanted_networks = [point for point in every if _wants(point, known, tolerance)]
        unmeasured = {point for point in (*wanted, *wanted_networks) if point not in known.points}
        if not wanted and not wanted_networks:
            break
        measuring.convert(unmeasured)
        random = np.random.default_rng(derive_seed(seed, "profile_latency", len(measuring.visits)))
        visits = deal_tours(slots, wanted, knots, random) if wanted else []
        visits += [network_visit(slots, number) for _, number in wanted_networks]
        for index in random.permutation(len(visits)):
            if measuring.seconds >= budget and unmeasured.isdisjoint(visits[index]):
                continue
            before = measuring.seconds
            measuring.visit(visits[index])
            progress.advance(measuring.seconds - before)
        if measuring.seconds >= budget:
            break
    progress.close()


def _points(knots: Mapping[OperationKey, Sequence[int]]) -> list[Point]:
    return [(key, width) for key, widths in knots.items() for width in widths]


def _wants(point: Point, known: Estimates, tolerance: float) -> bool:
    """Whether a point is new or still uncertain."""
    found = known.points.get(point)
    least = NETWORK_VISITS if point[0] == NETWORK else MIN_VISITS
    if found is None or found.visits < least:
        return True
    return found.uncertainty > tolerance and found.visits + found.outliers < MAX_VISITS


def _refine(knots: Knots, known: Estimates, grid: Grid, tolerance: float) -> None:
    """Add knots where the lines between well-known knots are worst."""
    found: list[tuple[float, OperationKey, int]] = []
    for key, widths in knots.items():
        estimates = {width: known.points[key, width] for width in widths if (key, width) in known.points}
        sure = {width: point.latency_ms for width, point in estimates.items() if point.visits >= MIN_VISITS}
        noise = max((point.uncertainty for point in estimates.values()), default=np.inf)
        if len(sure) == len(widths):
            further = further_knots(sure, grid.alignment, max(tolerance, noise / 2), multiple=grid.multiple)
            found += [(error, key, width) for width, error in further.items()]
    found.sort(reverse=True)
    for _, key, width in found[: max(1, int(GROWTH * sum(map(len, knots.values()))))]:
        knots[key] = sorted({*knots[key], width})


def _table(
    space: Space, measuring: Measuring, knots: Knots, parts: list[str], found: Estimates, alignment: int
) -> LatencyTable:
    parts_ms = {name: found.points[name, 0].latency_ms for name in parts}
    return LatencyTable(
        space=space.name,
        resolution=measuring.resolution,
        batch_size=measuring.params.batch_size,
        device=measuring.device_name,
        base_ms=sum(parts_ms.values()),
        curves={key: _curve(key, widths, found, measuring, alignment) for key, widths in knots.items()},
        fixed_stages=tuple(stage.stage for stage in space.stages if stage.fixed is not None),
        details={**how_measured(measuring, found, parts_ms), FIXED_PARTS: space.fixed_content()},
    )


def _curve(key: OperationKey, widths: Sequence[int], found: Estimates, measuring: Measuring, alignment: int) -> Curve:
    measured = [width for width in widths if (key, width) in found.points]
    points = [found.points[key, width] for width in measured]
    return Curve(
        tuple(measured),
        tuple(point.latency_ms for point in points),
        tuple(point.spread_ms for point in points),
        tuple(point.visits * measuring.params.repeats for point in points),
        alignment,
    )


def width_advice(space: Space, table: LatencyTable) -> str | None:
    """What to do where the space has widths that the device is slow at; None where it has none."""
    multiple, penalty = table.alignment, table.width_penalty
    if space.width_multiple % multiple == 0 or penalty < WORTH_ADVICE:
        return None
    name = space.name.partition("@")[0]
    at_multiples = f"{name}@{multiple}" if name in shipped_spaces() else f"a file with width_multiple: {multiple}"
    return (
        f"widths that are no multiples of {multiple} take {penalty:.1f} times as long as those that are; with"
        f" space: {at_multiples} no network has them"
    )


def how_measured(measuring: Measuring, found: Estimates, parts_ms: dict[str, float]) -> dict[str, Any]:
    """How the table was measured, as recorded in its file."""
    tours = [visit for visit in measuring.visits if visit.is_tour and len(visit.points) > 1]
    uncertain = [point.uncertainty for point in found.points.values() if np.isfinite(point.uncertainty)]
    return {
        **measuring.described(),
        "tours": len(tours),
        "outliers": sum(point.outliers for point in found.points.values()),
        "median_uncertainty": float(np.median(uncertain)) if uncertain else None,
        "drift_range": [float(bound) for bound in np.quantile(found.drift, (0.05, 0.95))],
        "cpu_share": measuring.cpu_share,
        "fixed_parts_ms": parts_ms,
        "cpu_governor": cpu_governor(),
        "packages": package_versions(),
        "seconds": round(measuring.seconds, 1),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
