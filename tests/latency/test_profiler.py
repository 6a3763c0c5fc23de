"""Profiling: a device of known latencies comes out exactly at the knots and by interpolation between."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tfnas.latency import LatencyTable
from tfnas.latency.measuring import block_probe, fixed_parts
from tfnas.latency.profiler import operation_ranges, profile_space, width_advice
from tfnas.latency.table import reachable_range_ms
from tfnas.space import Block, build_network, load_space
from tfnas.space.membership import assemble


@pytest.fixture(scope="module")
def device(fake_device):
    return fake_device()


@pytest.fixture(scope="module")
def table(space, device, make_measuring) -> LatencyTable:
    return profile_space(space, make_measuring(device)).table


def to_block(key, width) -> Block:
    return Block(key.kernel, key.in_channels, width, key.se_channels, key.out_channels, key.act, key.stride)


def test_known_latencies_come_out_exactly_at_knots_and_linearly_between(table, cost_ms) -> None:
    for key, curve in table.curves.items():
        knots = [cost_ms(to_block(key, width), key.resolution) for width in curve.widths]
        assert curve.latencies_ms == pytest.approx(knots)
        assert max(curve.spreads_ms) == pytest.approx(0.0, abs=1e-9) and min(curve.counts) >= 3 * 4
        for width in range(curve.widths[0], curve.widths[-1] + 1):
            right = next(i for i, knot in enumerate(curve.widths) if knot >= width)
            left = max(0, right - 1)
            share = (width - curve.widths[left]) / max(1, curve.widths[right] - curve.widths[left])
            assert table.operation_ms(key, width) == pytest.approx(knots[left] + share * (knots[right] - knots[left]))


def all_costs(table, cost_ms):
    """(table's, true) latency at every width of every operation."""
    pairs = [
        (table.operation_ms(key, width), cost_ms(to_block(key, width), key.resolution))
        for key, curve in table.curves.items()
        for width in range(curve.widths[0], curve.widths[-1] + 1)
    ]
    return np.array(pairs).T


@pytest.mark.parametrize(
    "speed",
    [
        pytest.param(lambda cost, now: cost * (1.2 + 0.3 * np.sin(now / 300)), id="drift"),
        pytest.param(lambda cost, now: cost * (9.0 if int(now * 7) % 13 == 0 else 1.0), id="spikes"),
    ],
)
def test_drift_and_spikes_do_not_become_latencies(space, fake_device, make_measuring, cost_ms, speed) -> None:
    """Up to one common factor, which the fixed parts share."""
    measuring = make_measuring(fake_device(speed), repeats=3, minutes=0.05, tolerance=0.002)
    found, true = all_costs(profile_space(space, measuring).table, cost_ms)
    ratio = found / true
    assert np.median(abs(ratio / np.median(ratio) - 1)) < 0.01


def test_a_step_is_found_and_enclosed(space, fake_device, make_measuring) -> None:
    """A device that takes 30 % more above a certain cost: knots gather where that happens."""
    threshold = 1.0
    device = fake_device(lambda cost, now: cost * (1.3 if cost > threshold else 1.0))
    table = profile_space(space, make_measuring(device, minutes=0.2, tolerance=0.005)).table
    crossed = 0
    for curve in table.curves.values():
        jumps = [
            (left, right)
            for left, right, a, b in zip(
                curve.widths, curve.widths[1:], curve.latencies_ms, curve.latencies_ms[1:], strict=False
            )
            if a <= threshold < b / 1.3
        ]
        crossed += len(jumps)
        assert all(right - left <= 2 for left, right in jumps)
    assert crossed > 0


@pytest.mark.parametrize("alignment", [1, 4, 16])
def test_favoured_widths_are_a_class_of_their_own(fake_device, make_measuring, cost_ms, alignment) -> None:
    class Favouring(fake_device):
        def prepare(self, module, example):
            block = getattr(module, "block", None)
            favoured = block is not None and block.expand_channels % alignment == 0
            run = super().prepare(module, example)
            return (lambda: [run() for _ in range(2 if favoured else 5)]) if alignment > 1 else run

    space = load_space("mobilenet-v2")
    measuring = make_measuring(Favouring(), resolution=32, minutes=0.02, tolerance=0.01)
    table = profile_space(space, measuring).table
    assert table.alignment == alignment
    found, true = all_costs(table, cost_ms)
    widths = np.concatenate([np.arange(c.widths[0], c.widths[-1] + 1) for c in table.curves.values()])
    factor = np.where(widths % alignment == 0, 2, 5) if alignment > 1 else 1
    assert np.quantile(abs(found / (factor * true) - 1), 0.95) < 0.02
    assert table.width_penalty == pytest.approx(2.5 if alignment > 1 else 1.0, rel=0.02)
    advice = width_advice(space, table)
    assert (advice is None) == (alignment == 1)
    if advice is not None:
        advised = advice.partition("space: ")[2].split()[0]
        assert advised == f"mobilenet-v2@{alignment}" and width_advice(load_space(advised), table) is None


@pytest.mark.parametrize("multiple", [4, 8])
def test_a_space_at_multiples_is_measured_at_them_alone(fake_device, make_measuring, cost_ms, multiple) -> None:
    space = load_space(f"mobilenet-v2@{multiple}")
    measuring = make_measuring(fake_device(), resolution=32, minutes=0.02, tolerance=0.01)
    profiled, every = profile_space(space, measuring).table, operation_ranges(space, 32)
    for key, curve in profiled.curves.items():
        assert all(width % multiple == 0 for width in curve.widths)
        assert (curve.widths[0], curve.widths[-1]) == every[key]
        true = [cost_ms(to_block(key, width), key.resolution) for width in range(*every[key], multiple)]
        found = [profiled.operation_ms(key, width) for width in range(*every[key], multiple)]
        assert np.quantile(abs(np.divide(found, true) - 1), 0.95) < 0.02
    low, high = reachable_range_ms(space, profiled)
    widest = [
        assemble(space, "x", {s.stage: [(c, c.width_range(s.in_channels)[1])] for s in space.searchable_stages})
        for c in space.candidates
    ]
    assert all(low < profiled.latency_ms(network) <= high for network in widest)


def test_every_operation_is_measured_once_over_all_its_candidates(space, table) -> None:
    table.check_fits(space, 16, source="test")
    expected: dict = {}
    for layer in space.layers(16):
        for candidate in space.candidates if layer.stage != 2 else ():
            se_channels = candidate.se_channels(layer.in_channels)
            low, high = candidate.width_range(layer.in_channels)
            facts = (layer.resolution, layer.in_channels, layer.out_channels, layer.stride, layer.act)
            expected.setdefault((facts, candidate.kernel, se_channels), set()).update((low, high))
    found = {
        ((k.resolution, k.in_channels, k.out_channels, k.stride, k.act), k.kernel, k.se_channels): c.widths
        for k, c in table.curves.items()
    }
    assert found.keys() == expected.keys()
    for name, widths in found.items():
        assert (widths[0], widths[-1]) == (min(expected[name]), max(expected[name]))


def test_table_1_has_66_operations_and_one_curve_for_both_expansions_without_se() -> None:
    ranges = operation_ranges(load_space("tf-nas"), 224)
    assert len(ranges) == 66
    for key, (low, high) in ranges.items():
        ratios = (low / key.in_channels, high / key.in_channels)
        assert ratios == {0: (2, 8), key.in_channels: (2, 4), 2 * key.in_channels: (4, 8)}[key.se_channels]


def test_base_is_the_sum_of_the_fixed_parts(space, table, cost_ms) -> None:
    parts = table.details["fixed_parts_ms"]
    assert table.base_ms == pytest.approx(sum(parts.values())) and table.fixed_stages == (2,)
    assert parts["block 0"] == pytest.approx(cost_ms(Block(3, 6, 6, 3, 4, "relu", 1), 8))
    network = build_network(smallest(space), 3)
    weights = {
        name: 1e-3 * sum(p.numel() for p in getattr(network, name).parameters()) for name in parts if name[0] != "b"
    }
    assert {name: parts[name] for name in weights} == pytest.approx(weights)


def smallest(space):
    candidate = space.candidates[0]
    return assemble(
        space, "s", {s.stage: [(candidate, candidate.width_range(s.in_channels)[0])] for s in space.searchable_stages}
    )


def test_fixed_parts_and_blocks_chain_to_the_whole_network(space) -> None:
    """Each part takes what the one before it gives, at the network's own sizes: nothing is missing or twice."""
    architecture = smallest(space)
    torch.manual_seed(0)
    parts = fixed_parts(space, 16, 3, 2)
    x = torch.randn(parts["stem"].input_shape)
    x = parts["stem"].build().eval()(x)
    keys = operation_ranges(space, 16)
    for index, (size, block) in enumerate(architecture.block_resolutions(16)):
        probe = parts.get(f"block {index}")
        if probe is None:
            key = next(k for k in keys if to_block(k, block.expand_channels) == dataclass_without_stage(block))
            assert key.resolution == size
            probe = block_probe(key, block.expand_channels, 2)
        assert tuple(x.shape) == probe.input_shape
        x = probe.build().eval()(x)
    for name in ("head", "classifier"):
        assert tuple(x.shape) == parts[name].input_shape
        x = parts[name].build().eval()(x)
    assert x.shape == (2, 3)
    counted = sum(p.numel() for probe in parts.values() for p in probe.build().parameters())
    searched = [b for b in architecture.blocks if b.stage != 2]
    counted += sum(p.numel() for b in searched for p in block_module(b).parameters())
    assert counted == sum(p.numel() for p in build_network(architecture, 3).parameters())


def dataclass_without_stage(block: Block) -> Block:
    return Block(**{**block.__dict__, "stage": 0})


def block_module(block: Block):
    from tfnas.space.network import MBInvRes

    return MBInvRes(block)


def test_seconds_versions_and_settings_stand_in_the_table(table, tmp_path) -> None:
    table.save(tmp_path / "table.json")
    loaded = LatencyTable.load(tmp_path / "table.json")
    assert loaded == table and loaded.details == table.details
    expected = {"backend": "fake", "threads": 1, "repeats": 4, "tolerance": 0.01, "warmup_runs": 1, "num_classes": 3}
    assert expected.items() <= table.details.items()
    assert {"cpu_governor", "packages", "seconds", "backend_version", "tours", "cpu_share"} <= table.details.keys()


def test_a_wider_block_that_is_faster_stays_so(space, fake_device, make_measuring) -> None:
    """Latencies are not smoothed into monotone ones."""
    device = fake_device(lambda cost, now: 10.0 - cost)
    table = profile_space(space, make_measuring(device)).table
    assert all(np.all(np.diff(curve.latencies_ms) < 0) for curve in table.curves.values())
