"""Elasticity-scaling against a scan of every gamma, and its laws on many networks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.jobs.errors import UserError
from tfnas.latency import OperationKey
from tfnas.search.constraint import latency_constraint
from tfnas.search.cost import Latency
from tfnas.search.scaling.elasticity_scaling import largest_scaling, scale_widths, scale_widths_by_integer_ratio
from tfnas.search.scaling.widths import WidthProblem, width_ranges
from tfnas.space import zoo
from tfnas.space.membership import assemble, violations


def every_scaling(problem, widths, scaled):
    """(gamma, widths) at every gamma that changes something, by exact fractions, gamma rising."""
    gammas = {Fraction(0)}
    for width, high in zip(widths[scaled].tolist(), problem.high[scaled].tolist(), strict=True):
        gammas |= {Fraction(n, width) for n in range(high + 1)}
    for gamma in sorted(gammas):
        wanted = [int(gamma * width) if moves else width for width, moves in zip(widths.tolist(), scaled, strict=True)]
        yield gamma, problem.clip(np.array(wanted))


@pytest.mark.parametrize("monotone", [True, False])
def test_a_round_finds_the_largest_gamma(tiny_space, make_table, monotone, random_network, reachable) -> None:
    random = np.random.default_rng(0)
    table = make_table(tiny_space, monotone=monotone)
    outcomes = set()
    for _ in range(150):
        architecture, ranges = random_network(tiny_space, random)
        problem = WidthProblem(architecture, Latency(table), ranges)
        scaled = problem.stages >= random.choice([3, 4])
        low, high = reachable(architecture, table, ranges)
        target_ms = random.uniform(0.9 * low, 1.1 * high)
        within = [w for _, w in every_scaling(problem, problem.widths, scaled) if problem.cost(w) <= target_ms]
        found = largest_scaling(problem, problem.widths, scaled, target_ms)
        assert (found is None) == (not within)
        assert found is None or np.array_equal(found, within[-1])
        outcomes.add(found is None)
    assert outcomes == {True, False}


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(-0.1, 1.1), monotone=st.booleans())
def test_scaled_network_meets_the_target_in_range_and_stays(
    tiny_space, make_table, seed, share, monotone, random_network, reachable
) -> None:
    random = np.random.default_rng(seed)
    table = make_table(tiny_space, monotone=monotone, seed=seed % 7)
    architecture, ranges = random_network(tiny_space, random)
    low, high = reachable(architecture, table, ranges)
    target_ms = low + share * (high - low)
    result = scale_widths(architecture, latency_constraint(tiny_space, table, target_ms), ranges=ranges)
    after = result.architecture
    assert result.cost_before == table.latency_ms(architecture)
    assert result.cost_after == table.latency_ms(after)
    assert result.reached == (result.cost_after <= target_ms)
    if low <= target_ms:
        assert result.reached
    assert all(lo <= block.expand_channels <= hi for block, (lo, hi) in zip(after.blocks, ranges, strict=True))
    if not result.reached and not monotone:
        return  # from the smallest widths other networks are on the way, and a dip among them may be within
    again = scale_widths(after, latency_constraint(tiny_space, table, target_ms), ranges=ranges)
    assert again.architecture == after


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), multiple=st.sampled_from([2, 3, 4, 8]))
def test_where_only_multiples_are_widths_a_round_finds_the_largest_gamma_among_them(
    tiny_space, make_table, seed, share, multiple, random_network
) -> None:
    """Against a scan of gamma over channels, not units: width = the multiple below gamma * w, within the range."""
    random = np.random.default_rng(seed)
    table = make_table(tiny_space, monotone=bool(seed % 2))
    candidates = tuple(replace(one, width_multiple=multiple) for one in tiny_space.candidates)
    space = replace(tiny_space, candidates=candidates)
    architecture, ranges = random_network(space, random)
    searched = [stage.stage for stage in space.searchable_stages]
    before = [block.expand_channels for block in architecture.blocks]

    def scaled(gamma: Fraction) -> list[int]:
        return [
            min(max(int(gamma * width) // multiple * multiple, low), high) if block.stage in searched else width
            for width, block, (low, high) in zip(before, architecture.blocks, ranges, strict=True)
        ]

    def cost(widths: list[int]) -> float:
        blocks = zip(architecture.blocks, widths, strict=True)
        return table.latency_ms(replace(architecture, blocks=tuple(replace(b, expand_channels=w) for b, w in blocks)))

    gammas = {Fraction(0)} | {
        Fraction(n * multiple, width)
        for width, block, (_, high) in zip(before, architecture.blocks, ranges, strict=True)
        if block.stage in searched
        for n in range(high // multiple + 1)
    }
    least, most = cost(scaled(Fraction(0))), cost(scaled(max(gammas)))
    target_ms = least + share * (most - least)
    problem = WidthProblem(architecture, Latency(table), ranges, multiple)
    found = largest_scaling(problem, problem.widths, np.isin(problem.stages, searched), target_ms)
    best = max(gamma for gamma in gammas if cost(scaled(gamma)) <= target_ms)
    assert [block.expand_channels for block in problem.with_widths(found).blocks] == scaled(best)

    after = scale_widths(architecture, latency_constraint(space, table, target_ms), ranges=ranges).architecture
    assert table.latency_ms(after) <= target_ms and not list(violations(after, space))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_one_round_is_monotone_in_the_target(tiny_space, tiny_table, seed, shares, random_network, reachable) -> None:
    # of one round only: several rounds may end nearer to a smaller target than to a larger one
    architecture, ranges = random_network(tiny_space, np.random.default_rng(seed))
    problem = WidthProblem(architecture, Latency(tiny_table), ranges)
    low, high = reachable(architecture, tiny_table, ranges)
    everything = problem.stages >= 3
    less, more = (
        largest_scaling(problem, problem.widths, everything, low + share * (high - low)) for share in sorted(shares)
    )
    assert (less <= more).all()


@pytest.mark.parametrize("seed", range(10))
def test_a_target_just_below_the_networks_own_latency(tiny_space, tiny_table, seed, random_network, reachable) -> None:
    architecture, ranges = random_network(tiny_space, np.random.default_rng(seed))
    before_ms = tiny_table.latency_ms(architecture)
    assert (
        scale_widths(architecture, latency_constraint(tiny_space, tiny_table, before_ms), ranges=ranges).cost_after
        <= before_ms
    )
    target_ms = float(np.nextafter(before_ms, 0))
    result = scale_widths(architecture, latency_constraint(tiny_space, tiny_table, target_ms), ranges=ranges)
    assert result.cost_after <= target_ms or target_ms < reachable(architecture, tiny_table, ranges)[0]


def test_a_target_below_all_gives_the_smallest_widths(tiny_space, tiny_table, random_network, reachable) -> None:
    architecture, ranges = random_network(tiny_space, np.random.default_rng(3))
    low, high = reachable(architecture, tiny_table, ranges)
    result = scale_widths(architecture, latency_constraint(tiny_space, tiny_table, 0.99 * low), ranges=ranges)
    assert not result.reached
    assert result.reachable == (low, high)
    assert [block.expand_channels for block in result.architecture.blocks] == [smallest for smallest, _ in ranges]


def test_the_widest_network_reaches_exactly_its_own_latency(tiny_space, tiny_table, random_network, reachable) -> None:
    architecture, ranges = random_network(tiny_space, np.random.default_rng(4))
    _, high = reachable(architecture, tiny_table, ranges)
    result = scale_widths(architecture, latency_constraint(tiny_space, tiny_table, high), ranges=ranges)
    assert [block.expand_channels for block in result.architecture.blocks] == [largest for _, largest in ranges]


def test_gap_on_networks_of_table_1(table1, make_table, random_network, reachable) -> None:
    random = np.random.default_rng(5)
    table = make_table(table1)
    gaps = []
    for _ in range(100):
        architecture, ranges = random_network(table1, random)
        low, high = reachable(architecture, table, ranges)
        target_ms = random.uniform(low, high)
        result = scale_widths(architecture, latency_constraint(table1, table, target_ms), ranges=ranges)
        gaps.append(1 - result.cost_after / target_ms)
    assert min(gaps) >= 0
    assert np.median(gaps) < 5e-5
    assert max(gaps) < 5e-3


def test_inferred_ranges_are_those_of_the_candidates(table1) -> None:
    architecture = zoo.load("TF-NAS-A")
    ranges = width_ranges(architecture, table1)
    assert ranges[0] == (architecture.blocks[0].expand_channels,) * 2
    for block, (low, high) in zip(architecture.blocks[1:], ranges[1:], strict=True):
        assert (low, high) in [
            (2 * block.in_channels, 4 * block.in_channels),
            (4 * block.in_channels, 8 * block.in_channels),
        ]
        assert low <= block.expand_channels <= high


def test_a_shared_width_belongs_to_the_first_candidate(tiny_space) -> None:
    e3, e6 = tiny_space.candidates[:2]
    assert e3.width_range(4)[1] == e6.width_range(4)[0] == 16
    architecture = assemble(tiny_space, "shared", {3: [(e6, 16)], 4: [(e6, 40)]})
    assert width_ranges(architecture, tiny_space) == [(6, 6), (8, 16), (24, 48)]


def test_a_table_without_the_operation_is_a_user_error(tiny_space, tiny_table, table1) -> None:
    with pytest.raises(UserError, match="has no operation"):
        scale_widths(zoo.load("TF-NAS-A"), latency_constraint(table1, tiny_table, 1.0))


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
