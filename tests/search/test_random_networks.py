"""Random networks of a limit: members of the space, at the limit, and each that can be scaled to it equally likely."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.tiny_spaces import K3_E3, K3_E6, space_text
from tests.search.conftest import synthetic_table
from tfnas.jobs.errors import UserError
from tfnas.latency import reachable_range_ms
from tfnas.search import latency_constraint
from tfnas.search.constraint import Constraint
from tfnas.search.cost import Cost
from tfnas.search.derivation.within_budget import can_be_filled, cost_ranges
from tfnas.search.random_networks import _draw, _fillable, _network, random_network, random_network_at
from tfnas.space import load_space
from tfnas.space.membership import violations


@pytest.fixture(scope="module", params=["tf-nas", "tf-nas-small-images", "mobilenet-v2"])
def full_space(request):
    space = load_space(request.param)
    return space, synthetic_table(space, resolution=32)


@pytest.mark.parametrize("relative", [0.1, 0.3, 0.6])
def test_members_of_the_space_that_use_the_limit_up(full_space, relative):
    space, table = full_space
    fastest, slowest = reachable_range_ms(space, table)
    constraint = latency_constraint(space, table, fastest + relative * (slowest - fastest))
    for seed in range(4):
        network = random_network_at(constraint, "random", seed).architecture
        assert not list(violations(network, space))
        assert 0.99 * constraint.limit <= constraint.cost.value(network) <= constraint.limit
        assert network == random_network_at(constraint, "random", seed).architecture


def test_another_seed_is_another_network(full_space):
    space, table = full_space
    fastest, slowest = reachable_range_ms(space, table)
    constraint = latency_constraint(space, table, 0.5 * (fastest + slowest))
    assert len({random_network_at(constraint, "random", seed).architecture.blocks for seed in range(5)}) == 5
    assert len({random_network(space, "random", seed).architecture.blocks for seed in range(5)}) == 5
    assert not list(violations(random_network(space, "random", 0).architecture, space))


def test_a_draw_counts_if_and_only_if_it_can_be_filled(tiny_space):
    """By `can_be_filled`, which sums the costs of the network's own blocks."""
    table = synthetic_table(tiny_space)
    fastest, slowest = reachable_range_ms(tiny_space, table)
    constraint = latency_constraint(tiny_space, table, fastest + 0.3 * (slowest - fastest))
    rows = zip(*_draw(tiny_space, 20_000, np.random.default_rng(3)), strict=True)
    expected = [row for row in (_network(tiny_space, "n", *row) for row in rows) if can_be_filled(row, constraint)]
    found = [row for row, _ in zip(_fillable(constraint, "n", np.random.default_rng(3)), expected, strict=False)]
    assert 0 < len(expected) < 20_000
    assert [row.architecture.blocks for row in found] == [row.architecture.blocks for row in expected]


def test_depths_and_operations_are_equally_likely(tiny_space):
    draws = 20_000
    operations, kept = _draw(tiny_space, draws, np.random.default_rng(0))
    for layer in range(operations.shape[1]):
        counts = Counter(operations[:, layer].tolist())
        assert len(counts) == len(tiny_space.candidates)
        expected = draws / len(tiny_space.candidates)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())  # 5 standard deviations
    first = 0
    for stage in tiny_space.searchable_stages:
        depths = Counter(kept[:, first : first + stage.max_depth].sum(1).tolist())
        assert set(depths) == set(range(1, stage.max_depth + 1))
        expected = draws / stage.max_depth
        assert all(abs(count - expected) < 5 * expected**0.5 for count in depths.values())
        first += stage.max_depth


def test_the_ranges_are_those_of_whole_networks(full_space):
    space, table = full_space
    constraint = latency_constraint(space, table, sum(reachable_range_ms(space, table)) / 2)
    fixed, ranges = cost_ranges(constraint)
    fastest, slowest = reachable_range_ms(space, table)
    assert fixed < fastest
    assert fixed + ranges[1].max(1).sum() == pytest.approx(slowest)  # the deepest network at its largest widths


@pytest.mark.parametrize("relative", [0.002, 0.97])
def test_networks_too_rare_to_draw_are_derived(full_space, relative, monkeypatch):
    monkeypatch.setattr("tfnas.search.random_networks.MOST", 20_000)
    space, table = full_space
    fastest, slowest = reachable_range_ms(space, table)
    constraint = latency_constraint(space, table, fastest + relative * (slowest - fastest))
    networks = [random_network_at(constraint, "random", seed).architecture for seed in range(4)]
    assert len({network.blocks for network in networks}) > 1
    for network in networks:
        assert not list(violations(network, space))
        assert 0.98 * constraint.limit <= constraint.cost.value(network) <= constraint.limit


class PerPixel(Cost):
    """Output pixels times width, so that a block at another resolution costs something else; nothing is in the base."""

    name, unit, source = "pixels", "px", "made up"

    def __init__(self, resolution: int) -> None:
        self.resolution, self.base, self.fixed_stages = resolution, 0.0, ()

    def operation(self, key, width):
        return float(key.resolution**2 * width)

    def curve(self, key):
        raise NotImplementedError


def test_fixed_blocks_cost_what_they_cost_behind_searched_ones(tmp_path):
    last = "  - {stage: 5, in_channels: 8, out_channels: 8, stride: 1, depth: [1, 1], act: relu,"
    fixed = f"{last}\n     fixed: {{kernel: 3, expand_ratio: 1, se_ratio: 0}}}}\ncandidates:"
    (tmp_path / "tiny.yaml").write_text(space_text(K3_E3, K3_E6).replace("candidates:", fixed))
    space = load_space(tmp_path / "tiny.yaml")
    base, ranges = cost_ranges(Constraint(space, PerPixel(16), 1.0))
    for seed in range(5):
        operations, kept = (values[0] for values in _draw(space, 1, np.random.default_rng(seed)))
        network = _network(space, "n", operations, kept)
        widths = iter(low for low, _ in network.width_ranges(space))
        blocks = tuple(replace(block, expand_channels=next(widths)) for block in network.architecture.blocks)
        smallest = replace(network.architecture, blocks=blocks)
        chosen = ranges[0, np.arange(len(operations)), operations] * kept
        assert base + chosen.sum() == pytest.approx(PerPixel(16).value(smallest))


def test_says_when_no_network_can_be_scaled_to_the_limit(tiny_space, monkeypatch):
    monkeypatch.setattr("tfnas.search.random_networks.MOST", 20_000)
    table = synthetic_table(tiny_space)
    constraint = latency_constraint(tiny_space, table, reachable_range_ms(tiny_space, table)[1])
    constraint = replace(constraint, limit=2 * constraint.limit)
    with pytest.raises(UserError, match=r"random: no network of .* can be scaled to"):
        random_network_at(constraint, "random", 0)
