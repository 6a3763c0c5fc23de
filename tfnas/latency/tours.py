"""Tours: blocks are timed where they run, one after the other as in a whole network.

A block that runs again and again by itself finds its weights in the nearest cache and its memory handed back
warm, and looks 15 to 50 % faster than inside a network. So each tour is as long as the deepest network of the
space: stem, fixed blocks, one operation for every layer, head and classifier, each run once in turn, several
times over. The authors' script times each operation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfnas.latency.table import OperationKey
from tfnas.space import Space

Point = tuple[OperationKey | str, int]  # an operation and a width; a fixed part's name and 0; NETWORK and its number
Slot = str | tuple[OperationKey, ...]  # of a tour: a fixed part, or the operations of a searchable layer
NETWORK = "network"

TimeSequence = Callable[..., np.ndarray]  # tfnas.compute.devices.time_sequence


class Visit(NamedTuple):
    """One tour, or one visit of a whole network (a tour of one)."""

    points: tuple[Point, ...]
    latencies_ms: tuple[float, ...]  # median of the repeats; not a number where nothing was measured
    cpu_share: float  # of the time that passed, the part in which this process computed; 1.0 where unknown
    seconds: float  # all that the visit took, preparation included


def tour_slots(space: Space, resolution: int, parts: Sequence[str]) -> list[Slot]:
    """The deepest network's order: stem, layers, head, classifier.

    Args:
        parts: names of the fixed parts, as `probes.fixed_parts` orders them: stem first, head and classifier last.
    """
    fixed = {stage.stage for stage in space.stages if stage.fixed is not None}
    slots: list[Slot] = list(parts[:-2])
    for layer in space.layers(resolution):
        if layer.stage not in fixed:
            keys = (
                OperationKey.of_candidate(layer, candidate.kernel, candidate.se_channels(layer.in_channels))
                for candidate in space.candidates
            )
            slots.append(tuple(dict.fromkeys(keys)))
    return [*slots, *parts[-2:]]


def deal_tours(
    slots: Sequence[Slot],
    wanted: Sequence[Point],
    knots: Mapping[OperationKey, Sequence[int]],
    random: np.random.Generator,
) -> list[tuple[Point, ...]]:
    """As many tours as it takes for each wanted point to be in one; other slots get random points of their layer."""
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
