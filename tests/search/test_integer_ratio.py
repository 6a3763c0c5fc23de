"""The authors' stepping, against the same steps taken channel by channel in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from tfnas.latency import OperationKey
from tfnas.search.constraint import latency_constraint
from tfnas.search.scaling.elasticity_scaling import scale_widths
from tfnas.search.scaling.integer_ratio import scale_widths_by_integer_ratio


def step_by_step(architecture, table, target_ms, ranges):
    """Widths of the searched blocks."""
    blocks = [i for i, block in enumerate(architecture.blocks) if block.stage > 2]
    keys = {i: (r, b) for i, (r, b) in enumerate(architecture.block_resolutions(table.resolution))}

    def latency(widths):
        return table.base_ms + sum(table.operation_ms(OperationKey.of_block(*keys[i]), widths[i]) for i in blocks)

    def fit(widths, first, sign):
        members = [i for i in blocks if architecture.blocks[i].stage >= first]
        narrowest = min(widths[i] for i in members)
        ratios = {i: round(widths[i] / narrowest) for i in members}
        free, current = dict.fromkeys(members, True), dict(widths)
        while any(free.values()) and sign * latency(current) <= sign * target_ms:
            widths = dict(current)
            for i in members:
                wanted = widths[i] + sign * ratios[i]
                low, high = ranges[i]
                free[i] = low < wanted < high
                current[i] = min(max(wanted, low), high)
        return current if sign < 0 else widths

    widths = {i: architecture.blocks[i].expand_channels for i in blocks}
    widths = fit(widths, 3, -1 if latency(widths) > target_ms else 1)
    return list(fit(widths, 4, 1).values())


@pytest.mark.parametrize("seed", range(40))
def test_same_widths_as_step_by_step(tiny_space, tiny_table, seed, random_network, reachable) -> None:
    random = np.random.default_rng(seed)
    architecture, ranges = random_network(tiny_space, random)
    low, high = reachable(architecture, tiny_table, ranges)
    target_ms = random.uniform(0.95 * low, 1.05 * high)
    result = scale_widths_by_integer_ratio(
        architecture, latency_constraint(tiny_space, tiny_table, target_ms), ranges=ranges
    )
    found = [block.expand_channels for block in result.architecture.blocks if block.stage > 2]
    assert found == step_by_step(architecture, tiny_table, target_ms, ranges)
    assert result.reached == (low <= target_ms)
    assert result.cost_after == tiny_table.latency_ms(result.architecture)


def test_exact_scaling_is_at_least_as_near_to_the_target_in_the_median(
    table1, make_table, random_network, reachable
) -> None:
    table, random = make_table(table1), np.random.default_rng(1)
    gaps = {"exact": [], "steps": []}
    for _ in range(60):
        architecture, ranges = random_network(table1, random)
        low, high = reachable(architecture, table, ranges)
        target_ms = random.uniform(low, high)
        for name, scale in (("exact", scale_widths), ("steps", scale_widths_by_integer_ratio)):
            result = scale(architecture, latency_constraint(table1, table, target_ms), ranges=ranges)
            gaps[name].append(1 - result.cost_after / target_ms)
    assert np.median(gaps["exact"]) <= np.median(gaps["steps"])
