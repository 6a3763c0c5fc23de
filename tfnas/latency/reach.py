"""Which latencies a space can reach on a device, and what a target means there."""

from __future__ import annotations

from tfnas.jobs.errors import UserError
from tfnas.latency.table import LatencyTable, OperationKey
from tfnas.space import Layer, Space


def candidate_range_ms(space: Space, table: LatencyTable, layer: Layer) -> list[tuple[float, float]]:
    """(smallest, largest) latency of each candidate of a layer over its widths."""
    ranges = []
    for candidate in space.candidates:
        key = OperationKey.of_candidate(layer, candidate)
        curve = table.curve(key)
        low, high = candidate.width_range(layer.in_channels)
        table.operation_ms(key, low), table.operation_ms(key, high)  # raises where the table has no such width
        latencies = curve.dense_ms[low - curve.widths[0] : high - curve.widths[0] + 1]
        ranges.append((float(latencies.min()), float(latencies.max())))
    return ranges


def reachable_range_ms(space: Space, table: LatencyTable) -> tuple[float, float]:
    """(smallest, largest) latency of any network of the space at the table's resolution.

    The largest is the widest, deepest network with the slowest candidate in each layer.
    """
    low = high = table.base_ms
    for layer in space.layers(table.resolution):
        if layer.stage in table.fixed_stages:
            continue
        ranges = candidate_range_ms(space, table, layer)
        low += min(smallest for smallest, _ in ranges) if layer.position == 1 else 0.0
        high += max(largest for _, largest in ranges)
    return low, high


def resolve_target_ms(
    name: str, latency_ms: float | None, relative: float | None, space: Space, table: LatencyTable
) -> float:
    """The latency in milliseconds that a target asks for.

    Args:
        latency_ms: the latency itself; or None, and
        relative: 0 for the fastest network of the space on the table's device, 1 for the slowest, in between in
            proportion. A share of the slowest alone may lie below the fastest: how far apart the two are differs by
            device.

    Raises:
        UserError: no network of the space can reach it; names the reachable range.
    """
    low, high = reachable_range_ms(space, table)
    if latency_ms is None:
        assert relative is not None
        return low + relative * (high - low)
    if not low <= latency_ms <= high:
        raise UserError(
            f"params.yaml: targets.{name}.constraint.latency_ms: {latency_ms} is a latency that no network of space"
            f" {space.name} reaches on {table.device}; choose {low:.3f} to {high:.3f}, or relative: 0 to 1 of that way"
        )
    return latency_ms
