"""Networks of a space from about the fastest to about the slowest, measured; and the one near a latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfnas.latency.params import ConstraintParams, ProfileLatencyParams
from tfnas.space import Architecture, Candidate, Space
from tfnas.space.membership import assemble

if TYPE_CHECKING:
    from tfnas.latency.timing import Probe

SIZES = (0.0, 0.25, 0.5, 0.75, 1.0)
TURNS = (0, 1, 2)  # of the wide networks, whose training steps are averaged
STRIDE = 5  # from one layer's operation to the next one's, so that neighbors differ in kernel and expansion
ROUNDS = 2  # of `repeats` runs each


class Reach(NamedTuple):
    """Latencies of a space's networks on a device, about."""

    sizes: Sequence[float]  # as `network_of_size` takes them
    latencies_ms: Sequence[float]
    wide_ms: Sequence[float] = ()  # of the networks of `wide_network` at the same sizes, with turn 0

    @property
    def fastest_ms(self) -> float:
        return min(self.latencies_ms)

    @property
    def slowest_ms(self) -> float:
        return max(self.latencies_ms)

    def limit_ms(self, constraint: ConstraintParams) -> float:
        """A searched target's latency, also where it is a position between the fastest and the slowest network."""
        if constraint.latency_ms is not None:
            return constraint.latency_ms
        assert constraint.relative is not None
        return self.fastest_ms + constraint.relative * (self.slowest_ms - self.fastest_ms)

    def networks_at(self, space: Space, limit_ms: float) -> list[Architecture]:
        """Some networks of about this latency, such as a search finds; the nearest end beyond the measured ones.

        Latency does not say how long a training step takes: a deep and narrow network and a shallow and wide one may
        take equally long for one image, where each layer counts, and the second twice as long for a batch.
        """
        wide = self.wide_ms or self.latencies_ms
        if limit_ms < wide[0]:
            return [network_of_size(space, _interpolated(limit_ms, self.latencies_ms, self.sizes))]
        size = _interpolated(limit_ms, wide, self.sizes)
        return [wide_network(space, size, turn) for turn in TURNS]


def _interpolated(limit_ms: float, latencies_ms: Sequence[float], sizes: Sequence[float]) -> float:
    """The size of this latency, on the lines between the measured ones."""
    return float(np.interp(limit_ms, np.maximum.accumulate(latencies_ms), sizes))


def network_of_size(space: Space, size: float) -> Architecture:
    """The network whose depths, operations and widths are all so far, 0 to 1, between the smallest and the largest."""
    candidates = sorted(space.candidates, key=lambda one: (one.expand_range, one.kernel, one.se_ratio))
    candidate = candidates[round(size * (len(candidates) - 1))]
    choices: dict[int, list[tuple[Candidate, int]]] = {}
    for stage in space.searchable_stages:
        depth = round(stage.min_depth + size * (stage.max_depth - stage.min_depth))
        choices[stage.stage] = []
        for position in range(depth):
            widths = candidate.widths(stage.out_channels if position else stage.in_channels)
            choices[stage.stage].append((candidate, widths[round(size * (len(widths) - 1))]))
    return assemble(space, f"size {size:.2f}", choices)


def wide_network(space: Space, size: float, turn: int) -> Architecture:
    """A network of the smallest depth for its width, as derivation within the budget prefers it, of mixed operations.

    Args:
        size: up to 0.5 the widths grow, at the smallest depth; from there the depth, at the largest widths.
        turn: the operation of the first layer; the others follow in the order of the space.
    """
    width, deeper, layer = min(1.0, 2 * size), max(0.0, 2 * size - 1), turn
    choices: dict[int, list[tuple[Candidate, int]]] = {}
    for stage in space.searchable_stages:
        choices[stage.stage] = []
        for position in range(round(stage.min_depth + deeper * (stage.max_depth - stage.min_depth))):
            candidate, layer = space.candidates[STRIDE * layer % len(space.candidates)], layer + 1
            widths = candidate.widths(stage.out_channels if position else stage.in_channels)
            choices[stage.stage].append((candidate, widths[round(width * (len(widths) - 1))]))
    return assemble(space, f"wide {size:.2f}, {turn}", choices)


def measure_reach(space: Space, params: ProfileLatencyParams, resolution: int) -> Reach:
    """Measure networks of SIZES end to end, of both kinds.

    Raises:
        UserError: the device or the backend is absent.
    """
    from tfnas.latency.measuring import network_probe

    networks = [network_of_size(space, size) for size in SIZES]
    wide = [wide_network(space, size, 0) for size in SIZES]
    probes = {
        network.name: network_probe(network, resolution, params.num_classes, params.batch_size)
        for network in (*networks, *wide)
    }
    measured = measure_ms(probes, params, resolution)
    return Reach(SIZES, *([measured[network.name] for network in kind] for kind in (networks, wide)))


def measure_ms(probes: Mapping[str, Probe], params: ProfileLatencyParams, resolution: int) -> dict[str, float]:
    """The latency of whole networks in milliseconds, as the profile measures them: on a CPU without preempted time.

    Raises:
        UserError: the device or the backend is absent.
    """
    from tfnas.latency.measuring import Measuring

    measuring = Measuring(params, space="", resolution=resolution)
    with measuring.session(probes, ()):
        rounds = [{name: measuring.measure([(name, 0)])[0][0] for name in probes} for _ in range(ROUNDS)]
    return {name: median(measured[name] for measured in rounds) for name in probes}
