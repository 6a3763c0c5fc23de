"""Where and at which widths blocks are timed, in tours and at knots; and what all the visits say about each.

A *tour* times blocks one after another, as in a whole network. A block that runs repeatedly by itself finds its weights
in the nearest cache and its memory still warm, and looks 15 to 50 % faster than inside a network. So each tour is as
long as the deepest network of the space: stem, fixed blocks, one operation for every layer, head and classifier, run in
turn, several times over. The authors' script times each operation alone.

A *knot* is a width at which an operation is measured: first a few, then more where the line between two of them is not
good enough. A device may be faster at every `alignment`-th width (vector registers, blocked layouts): ONNX Runtime
takes a third of the time at multiples of 4 channels. So multiples and other widths are two classes, each with its own
knots.

Estimates (V visits, P points) are of the model: log of a latency = the point's level + the offset of the visit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfnas.latency.table import OperationKey
from tfnas.space import Space

Point = tuple[OperationKey | str, int]  # an operation and a width; a fixed part's name and 0; NETWORK and its number
Slot = str | tuple[OperationKey, ...]  # of a tour: a fixed part, or the operations of a searchable layer
NETWORK = "network"
TimeSequence = Callable[..., np.ndarray]  # tfnas.compute.devices.time_sequence
SIGMA = 1.4826  # a normal distribution's standard deviation, in median absolute deviations
MEDIAN_ERROR = 1.2533  # standard error of a median, in standard errors of a mean
OUTLIER_SIGMAS, OUTLIER_LEAST = 5.0, 0.05  # an outlier is further off than both of them
ROUNDS = 3  # of alternating between levels and offsets; more change nothing


class Visit(NamedTuple):
    """One tour, or one visit of a whole network between the fixed parts of a tour."""

    points: tuple[Point, ...]
    latencies_ms: tuple[float, ...]  # median of the repeats; not a number where nothing was measured
    cpu_share: float  # of the elapsed time, in which this process computed; 1.0 where unknown
    seconds: float  # all that the visit took, preparation included

    @property
    def is_tour(self) -> bool:
        """Whether it is not of a whole network."""
        return all(key != NETWORK for key, _ in self.points)


def network_visit(slots: Sequence[Slot], number: int) -> tuple[Point, ...]:
    """A whole network, and the fixed parts around it, which tell how fast the machine is meanwhile."""
    parts = [(slot, 0) for slot in slots if isinstance(slot, str)]
    return (*parts[:-2], (NETWORK, number), *parts[-2:])


def tour_slots(space: Space, resolution: int, parts: Sequence[str]) -> list[Slot]:
    """The deepest network's order: stem, layers, head, classifier.

    Args:
        parts: names of the fixed parts, in the order of `measuring.fixed_parts`: stem first, head and classifier last.
    """
    fixed = {stage.stage for stage in space.stages if stage.fixed is not None}
    slots: list[Slot] = list(parts[:-2])
    for layer in space.layers(resolution):
        if layer.stage not in fixed:
            keys = (OperationKey.of_candidate(layer, candidate) for candidate in space.candidates)
            slots.append(tuple(dict.fromkeys(keys)))
    return [*slots, *parts[-2:]]


def deal_tours(
    slots: Sequence[Slot],
    wanted: Sequence[Point],
    knots: Mapping[OperationKey, Sequence[int]],
    random: np.random.Generator,
) -> list[tuple[Point, ...]]:
    """Enough tours for each wanted point to be in one; other slots get random points of their layer."""
    queues: dict[Slot, list[Point]] = {slot: [] for slot in slots if not isinstance(slot, str)}
    home = {key: slot for slot in queues for key in slot}
    for index in random.permutation(len(wanted)):
        point = wanted[index]
        if isinstance(point[0], OperationKey):
            queues[home[point[0]]].append(point)
    tours: list[tuple[Point, ...]] = []
    while not tours or any(queues.values()):
        tours.append(tuple(_next_point(slot, queues, knots, random) for slot in slots))
    return tours


def _next_point(
    slot: Slot,
    queues: dict[Slot, list[Point]],
    knots: Mapping[OperationKey, Sequence[int]],
    random: np.random.Generator,
) -> Point:
    if isinstance(slot, str):
        return slot, 0
    if queues[slot]:
        return queues[slot].pop()
    key = slot[random.integers(len(slot))]
    return key, int(random.choice(np.asarray(knots[key])))


INNER = 3  # knots of a class between its ends, before any refinement
OF_A_SECTION = 4.0  # a curve's bend over two intervals is about four times the error of the line over one of them


def first_knots(low: int, high: int, in_channels: int, alignment: int, *, multiple: int = 1) -> tuple[int, ...]:
    """The widths to begin with: each class's ends and a few evenly between.

    A block as wide as its input has no expansion convolution: where that lies within the range, both sides of
    the jump are measured.

    Args:
        multiple: of the space, which has no other widths; low and high are multiples of it.
    """
    widths = range(low, high + 1, multiple)
    narrow = len(range(low, in_channels + 1, multiple))  # widths up to the input's
    below, above = widths[:narrow], widths[narrow:]
    if below and above:
        return tuple(sorted({*_of_classes(below, alignment), *_of_classes(above, alignment)}))
    return _of_classes(widths, alignment)


def _of_classes(widths: range, alignment: int) -> tuple[int, ...]:
    knots = {widths[0], widths[-1]}
    for members in classes(widths, alignment):
        places = np.linspace(0, len(members) - 1, min(INNER + 2, len(members)))
        knots.update(members[round(place)] for place in places)
    return tuple(sorted(knots))


def classes(widths: Sequence[int], alignment: int) -> list[list[int]]:
    """The widths that are multiples of `alignment` and the others; one class where that is 1. None is empty."""
    aligned = [width for width in widths if width % alignment == 0]
    others = [width for width in widths if width % alignment]
    return [members for members in (aligned, others) if members]


def further_knots(
    latencies_ms: Mapping[int, float], alignment: int, tolerance: float, *, multiple: int = 1
) -> dict[int, float]:
    """Widths between knots where linear interpolation may be off by more than `tolerance`, with that estimate.

    The estimate: how far each inner knot lies from the line between its neighbors, relative, over four.

    Args:
        multiple: of the space.
    """
    found: dict[int, float] = {}
    for knots in classes(sorted(latencies_ms), alignment):
        bends = _bends(knots, [latencies_ms[width] for width in knots])
        for i, (left, right) in enumerate(itertools.pairwise(knots)):
            error = max(bends[i], bends[i + 1]) / OF_A_SECTION
            middle = _member_between(left, right, alignment, multiple)
            if error > tolerance and middle is not None:
                found[middle] = error
    return found


def _bends(knots: Sequence[int], latencies_ms: Sequence[float]) -> np.ndarray:
    """Of each knot, how far the line between its neighbors is from it, relative; 0 at the ends."""
    widths, values, bends = np.asarray(knots, float), np.asarray(latencies_ms), np.zeros(len(knots))
    if len(knots) > 2:
        share = (widths[1:-1] - widths[:-2]) / (widths[2:] - widths[:-2])
        line = values[:-2] + share * (values[2:] - values[:-2])
        bends[1:-1] = abs(line / values[1:-1] - 1.0)
    return bends


def _member_between(left: int, right: int, alignment: int, multiple: int) -> int | None:
    """The width of the same class nearest to the middle; None when there is none between."""
    same = [w for w in range(left + multiple, right, multiple) if (w % alignment == 0) == (left % alignment == 0)]
    return min(same, key=lambda width: abs(2 * width - left - right)) if same else None


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

    The fixed parts are in every visit and are the anchors: they alone give the first offsets. A whole network says
    nothing about its visit's offset, so that a table never knows those that it is compared with.
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
    whole = np.array([point[0] == NETWORK for point in index], bool)
    anchors = np.array([isinstance(point[0], str) for point in index], bool) & ~whole
    offsets = np.zeros(len(visits))
    for number in range(ROUNDS):
        levels = np.array([np.median(group) for group in _grouped(value - offsets[row], column, len(index))])
        trusted = anchors if number == 0 else anchors | (~whole & (counts >= 3))
        use = trusted[column]
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
