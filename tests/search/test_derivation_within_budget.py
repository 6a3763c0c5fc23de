"""The most probable network that can be scaled to the limit: against all networks of a small space, and on Table 1."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tfnas.latency import OperationKey, reachable_range_ms
from tfnas.search import Loaders, Setting, latency_constraint, run_warm_up, scale_widths, search
from tfnas.search.derivation.strongest import derive, searchable_layers, stage_slices
from tfnas.search.derivation.within_budget import SHARES, can_be_filled, derive_within_budget
from tfnas.search.supernet.depth_spaces import DEPTH_SPACES
from tfnas.search.supernet.supernet import Supernet

SPACES = ["sink", "skip_in", "skip_out"]


def random_choice(space, depth_space, generator, scale=1.0):
    """Random alpha and beta, and the initial widths."""
    supernet = Supernet(space, 2, depth_space) if space.name == "tiny" else None
    extra = int(DEPTH_SPACES[depth_space].skip_is_candidate)
    shape = len(searchable_layers(space)), len(space.candidates) + extra
    initial_beta = DEPTH_SPACES[depth_space].initial_beta
    betas = [initial_beta(stage.max_depth) for stage in space.searchable_stages]
    betas = [scale * torch.randn(beta.shape, generator=generator) for beta in betas]
    widths = [[c.initial_width(layer.in_channels) for c in space.candidates] for layer in searchable_layers(space)]
    assert supernet is None or (supernet.widths() == widths and supernet.alphas.shape == shape)
    return scale * torch.randn(shape, generator=generator), betas, widths


def by_brute_force(space, table, alphas, betas, depth_space):
    """(log-probability, cost at smallest widths, at largest) of every network, by its operations; K: not kept."""
    layers, skip = searchable_layers(space, table.resolution), len(space.candidates)
    stages = []
    for beta, (first, end) in zip(betas, stage_slices(space), strict=True):
        rows = {}
        for picks in itertools.product(range(skip + 1), repeat=end - first):
            kept = [pick < skip for pick in picks]
            if not kept[0] or (depth_space == "sink" and sorted(kept, reverse=True) != kept):
                continue
            p, low, high = 0.0, 0.0, 0.0
            for position, pick in enumerate(picks):
                alpha = alphas[first + position].tolist()
                if depth_space == "skip_in" and position == 0:
                    alpha = alpha[:skip]  # the first layer has no skip
                share = [math.exp(value) / sum(map(math.exp, alpha)) for value in alpha]
                counts = depth_space == "skip_in" or kept[position]
                p += math.log(share[pick] if counts else max(share))
                if depth_space == "skip_out" and position > 0:
                    ways = beta[position - 1].tolist()
                    p += math.log(math.exp(ways[0 if kept[position] else 1]) / sum(map(math.exp, ways)))
                if kept[position]:
                    layer, candidate = layers[first + position], space.candidates[pick]
                    key = OperationKey.of_candidate(layer, candidate)
                    smallest, largest = candidate.width_range(layer.in_channels)
                    low, high = low + table.operation_ms(key, smallest), high + table.operation_ms(key, largest)
            if depth_space == "sink":
                p += math.log(math.exp(beta[sum(kept) - 1]) / sum(map(math.exp, beta.tolist())))
            rows[picks] = np.array([p, low, high])
        stages.append(rows)
    base = np.array([0.0, table.base_ms, table.base_ms])
    return {one + two: base + stages[0][one] + stages[1][two] for one in stages[0] for two in stages[1]}


def picks_of(derived, space):
    """The key of a derived network among those of `by_brute_force`."""
    chosen = zip(derived.operations, derived.kept, strict=True)
    return tuple(operation if kept else len(space.candidates) for operation, kept in chosen)


@pytest.mark.parametrize("monotone", [True, False], ids=["monotone", "dips"])
@pytest.mark.parametrize("depth_space", SPACES)
def test_no_network_that_fits_is_more_probable(tiny_space, make_table, depth_space, monotone) -> None:
    generator, random = torch.Generator().manual_seed(0), np.random.default_rng(0)
    table = make_table(tiny_space, monotone=monotone)
    outcomes = set()
    for number in range(40):
        alphas, betas, widths = random_choice(tiny_space, depth_space, generator, scale=[0.1, 1.0, 3.0][number % 3])
        every = by_brute_force(tiny_space, table, alphas, betas, depth_space)
        networks = np.array(list(every.values()))
        limit = float(random.uniform(0.98 * networks[:, 1].min(), 1.02 * networks[:, 2].max()))
        constraint = latency_constraint(tiny_space, table, limit)
        derived = derive_within_budget(constraint, alphas, betas, widths, "x", depth_space)
        found = every[picks_of(derived, tiny_space)][0]
        fits = [(networks[:, 1] <= limit) & (networks[:, 2] >= share * limit) for share in SHARES]
        allowed = next((some for some in fits if some.any()), networks[:, 0] < 0)
        assert found == pytest.approx(networks[allowed, 0].max(), abs=1e-6)  # alpha is in float32
        assert can_be_filled(derived, constraint) == fits[0].any()
        outcomes.add("strongest" if found == pytest.approx(networks[:, 0].max(), abs=1e-6) else "another")
    assert outcomes == {"strongest", "another"}


@pytest.mark.parametrize("depth_space", SPACES)
def test_the_strongest_network_is_derived_where_it_can_be_scaled_to_the_limit(tiny_space, make_table, depth_space):
    table = make_table(tiny_space)
    alphas, betas, widths = random_choice(tiny_space, depth_space, torch.Generator().manual_seed(1))
    strongest = derive(tiny_space, alphas, betas, widths, "x", depth_space)
    constraint = latency_constraint(tiny_space, table, table.latency_ms(strongest.architecture))
    assert derive_within_budget(constraint, alphas, betas, widths, "x", depth_space) == strongest


def test_below_all_networks_the_strongest_is_derived(tiny_space, tiny_table) -> None:
    low, _ = reachable_range_ms(tiny_space, tiny_table)
    alphas, betas, widths = random_choice(tiny_space, "sink", torch.Generator().manual_seed(2))
    strongest = derive(tiny_space, alphas, betas, widths, "x")
    constraint = latency_constraint(tiny_space, tiny_table, 0.9 * low)
    assert derive_within_budget(constraint, alphas, betas, widths, "x") == strongest


@pytest.mark.parametrize("factor", [1.01, 1.3, 2.0])
def test_above_all_networks_one_of_the_slowest_is_derived(tiny_space, tiny_table, factor) -> None:
    _, high = reachable_range_ms(tiny_space, tiny_table)
    alphas, betas, widths = random_choice(tiny_space, "sink", torch.Generator().manual_seed(2))
    constraint = latency_constraint(tiny_space, tiny_table, factor * high)
    derived = derive_within_budget(constraint, alphas, betas, widths, "x")
    scaled = scale_widths(derived.architecture, constraint, ranges=derived.width_ranges(tiny_space))
    assert high - 0.01 * constraint.limit <= scaled.cost_after <= high
    assert not can_be_filled(derived, constraint)


def test_at_both_ends_of_the_reachable_range_only_one_network_is_left(tiny_space, tiny_table) -> None:
    alphas, betas, widths = random_choice(tiny_space, "sink", torch.Generator().manual_seed(3))
    depths = []
    for limit in reachable_range_ms(tiny_space, tiny_table):
        constraint = latency_constraint(tiny_space, tiny_table, limit)
        derived = derive_within_budget(constraint, alphas, betas, widths, "x")
        scaled = scale_widths(derived.architecture, constraint, ranges=derived.width_ranges(tiny_space))
        assert scaled.cost_after == pytest.approx(limit, rel=1e-12)
        depths.append(tuple(derived.depths.values()))
    assert depths == [(1, 1), (2, 3)]


def test_operations_of_one_width_stay_within_the_limit(tiny_space, make_table) -> None:
    """No network can be scaled then: one below the limit is derived, never one above it."""
    rigid = tuple(replace(c, expand_range=(c.expand_ratio, c.expand_ratio)) for c in tiny_space.candidates)
    space = replace(tiny_space, candidates=rigid)
    table, generator = make_table(space), torch.Generator().manual_seed(4)
    low, high = reachable_range_ms(space, table)
    for share in (0.1, 0.5, 0.9):
        alphas, betas, widths = random_choice(tiny_space, "sink", generator)
        limit = low + share * (high - low)
        derived = derive_within_budget(latency_constraint(space, table, limit), alphas, betas, widths, "x")
        every = by_brute_force(space, table, alphas, betas, "sink")
        share = every[picks_of(derived, space)][1] / limit
        near = [p for p, one, _ in every.values() if 0.99 * limit <= one <= limit]
        assert 0.99 <= share <= 1.0
        assert every[picks_of(derived, space)][0] == pytest.approx(max(near), abs=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 5.0])
@pytest.mark.parametrize("depth_space", SPACES)
def test_on_table_1_the_derived_network_fills_the_budget(table1, make_table, depth_space, scale) -> None:
    generator, random, table = torch.Generator().manual_seed(5), np.random.default_rng(5), make_table(table1)
    low, high = reachable_range_ms(table1, table)
    for _ in range(8):
        alphas, betas, widths = random_choice(table1, depth_space, generator, scale)
        constraint = latency_constraint(table1, table, low + random.uniform(0.05, 0.95) * (high - low))
        derived = derive_within_budget(constraint, alphas, betas, widths, "x", depth_space)
        scaled = scale_widths(derived.architecture, constraint, ranges=derived.width_ranges(table1))
        assert 0.99 * constraint.limit <= scaled.cost_after <= constraint.limit


@pytest.mark.parametrize("depth_space", SPACES)
def test_current_widths_have_no_influence(tiny_space, tiny_table, target_ms, depth_space) -> None:
    supernet = Supernet(tiny_space, 3, depth_space)
    constraint = latency_constraint(tiny_space, tiny_table, 0.6 * target_ms)
    before = supernet.derive("x", constraint, "budget")
    for operation in supernet.operations():
        operation.restore_width(operation.max_width)
    after = supernet.derive("x", constraint, "budget")
    assert (before.operations, before.kept) == (after.operations, after.kept)
    assert before.architecture != after.architecture


@pytest.mark.parametrize("scaling", [True, "integer_ratio", False])
@pytest.mark.parametrize("depth_space", SPACES)
def test_a_search_ends_with_the_network_that_its_last_epoch_recorded(
    tiny_space, tiny_table, loaders, make_params, scaling, depth_space
) -> None:
    low, high = reachable_range_ms(tiny_space, tiny_table)
    constraint = latency_constraint(tiny_space, tiny_table, low + 0.8 * (high - low))
    params = make_params(elasticity_scaling=scaling, depth_space=depth_space)
    setting = Setting(params, within="budget")
    result = search(constraint, Loaders(*loaders, num_classes=3), setting)
    derived, last = result.derive("x", constraint, "budget"), result.history[-1]
    assert tiny_table.latency_ms(derived.architecture) == last.derived_latency_after_ms
    assert can_be_filled(derived, constraint)
    assert not can_be_filled(result.derive("x"), constraint)  # the strongest one is another
    for (stage, depth), (first, _) in zip(derived.depths.items(), stage_slices(tiny_space), strict=True):
        assert last.derived[f"stage{stage}_depth"] == depth
        assert last.derived[f"stage{stage}_layer1_op"] == tiny_space.candidates[derived.operations[first]].name
    if scaling is True:
        assert 0.99 * constraint.limit <= last.derived_latency_after_ms <= constraint.limit
    warmed = run_warm_up(tiny_space, Loaders(*loaders, num_classes=3), setting)
    forked = search(constraint, Loaders(*loaders, num_classes=3), setting, warm_up=warmed)
    assert [r.derived for r in forked.history] == [r.derived for r in result.history]
    assert forked.widths == result.widths
