"""Adapted tables: a device that differs by a factor per operation or family is found, an equal one changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.cli import main
from tfnas.latency import Curve, LatencyTable, OperationKey
from tfnas.latency.adaptation import (
    ADAPTED_FROM,
    LEAST_SAMPLES,
    Observed,
    adapt_table,
    fit_factors,
    plan_samples,
    spread_by_latency,
)
from tfnas.latency.measuring import fixed_parts
from tfnas.latency.profiler import operation_ranges, profile_space
from tfnas.latency.tours import tour_slots
from tfnas.latency.validation import validation_networks
from tfnas.space import load_space
from tfnas.stages.profile_latency import adapt

TF_NAS = load_space("tf-nas")
RANGES = operation_ranges(TF_NAS, 224)


def made_ms(key: OperationKey, width: int) -> float:
    """Smooth, growing with the width, and different for every operation."""
    return 0.05 + 1e-6 * key.resolution * (key.in_channels + key.kernel**2 + key.se_channels) * width**1.1


def made_table(alignment: int = 1) -> LatencyTable:
    """Of Table 1's space; with an alignment, its multiples take three quarters of the time."""
    curves = {}
    for key, (low, high) in RANGES.items():
        widths = sorted({*np.linspace(low, high, 7).astype(int).tolist(), *(w for w in (low + 1, high - 1))})
        widths += [w // 16 * 16 for w in widths if low <= w // 16 * 16]
        widths = sorted(set(widths))
        factor = [0.75 if alignment > 1 and w % alignment == 0 else 1.0 for w in widths]
        curves[key] = Curve(
            tuple(widths), tuple(f * made_ms(key, w) for f, w in zip(factor, widths, strict=True)), alignment=alignment
        )
    return LatencyTable("tf-nas", 224, 1, "source", 1.0, curves)


def observe(source: LatencyTable, tours: int, factor, seed: int = 0) -> list[Observed]:
    """The points of tours through the space, on a device whose latency is the source's times `factor(key, width)`."""
    slots = tour_slots(TF_NAS, 224, ["stem", "block 0", "head", "classifier"])
    plan = plan_samples(slots, RANGES, 0, seed)
    points = {point for _, tour in zip(range(tours), plan, strict=False) for point in tour if point[1]}
    return [
        Observed(key, width, source.operation_ms(key, width) * factor(key, width), 1)
        for key, width in sorted(points, key=str)
    ]


def adapted_curves(source: LatencyTable, points: list[Observed]) -> dict[OperationKey, Curve]:
    factors = fit_factors(source, points)
    return {key: factors.curve(key, curve) for key, curve in source.curves.items()}


@pytest.mark.parametrize("alignment", [1, 16])
def test_an_equal_device_gives_the_source_back(alignment) -> None:
    source = made_table(alignment)
    for key, curve in adapted_curves(source, observe(source, 5, lambda key, width: 1.0)).items():
        assert curve.widths == source.curves[key].widths and curve.alignment == alignment
        assert curve.latencies_ms == pytest.approx(source.curves[key].latencies_ms)


def operation_factor(key: OperationKey) -> float:
    """From 0.3 to 0.9, as if drawn for every operation by itself."""
    return 0.3 + 0.6 * (hash_of(key) % 1000) / 1000


def hash_of(key: OperationKey) -> int:
    return int(
        sum(p * v for p, v in zip((7919, 104729, 1299709, 15485863), (key[0], key[3], key[5], key[1]), strict=True))
    )


def worst(found, source, factor) -> tuple[float, float]:
    """Median and largest relative error over all operations and knots."""
    errors = [
        abs(ms / (factor(key, width) * source.operation_ms(key, width)) - 1)
        for key, curve in found.items()
        for width, ms in zip(curve.widths, curve.latencies_ms, strict=True)
    ]
    return float(np.median(errors)), max(errors)


def test_a_factor_for_every_operation_is_recovered_and_better_with_more_samples() -> None:
    source = made_table()

    def factor(key: OperationKey, width: int) -> float:
        return operation_factor(key)

    medians = []
    for tours in (2, 5, 10):
        median, largest = worst(adapted_curves(source, observe(source, tours, factor)), source, factor)
        medians.append(median)
    assert medians[0] > medians[1] and medians[-1] < 0.01 and largest < 0.03


def test_an_operation_that_was_left_out_gets_its_familys_factor() -> None:
    source = made_table(16)

    def factor(key: OperationKey, width: int) -> float:
        return (0.5 if key.kernel == 5 else 0.8) * (1.4 if key.se_channels else 1.0) * (0.9 if key.stride == 2 else 1.0)

    points = observe(source, 4, factor)
    left_out = sorted({point.key for point in points})[::5]
    kept = [point for point in points if point.key not in left_out]
    found = adapted_curves(source, kept)
    assert worst({key: found[key] for key in left_out}, source, factor)[1] < 0.03


@pytest.mark.parametrize("power", [-0.6, 0.4])
def test_a_device_on_which_width_costs_more_or_less_is_found(power) -> None:
    source = made_table()

    def factor(key: OperationKey, width: int) -> float:
        return (0.5 if key.kernel == 5 else 0.8) * (width / 64) ** power

    median, largest = worst(adapted_curves(source, observe(source, 5, factor)), source, factor)
    assert median < 0.01 and largest < 0.06


def test_a_device_that_favors_widths_of_one_kernel_more_than_of_another_is_found() -> None:
    source = made_table()

    def factor(key: OperationKey, width: int) -> float:
        return 1.0 if width % 16 else (0.3 if key.kernel == 5 else 0.7)

    found = adapted_curves(source, observe(source, 10, factor))
    assert {curve.alignment for curve in found.values()} == {16}
    assert worst(found, source, factor)[0] < 0.02


@given(st.floats(1e-3, 1e3), st.integers(0, 5))
@settings(max_examples=15)
def test_units_carry_through(unit, seed) -> None:
    """The same device measured in other units gives the same table in these units, however noisy."""
    source, random = made_table(), np.random.default_rng(seed)
    noise = dict.fromkeys(RANGES, 1.0) | {key: float(random.uniform(0.7, 1.5)) for key in RANGES}
    points = observe(source, 3, lambda key, width: noise[key], seed)
    other = [point._replace(latency_ms=unit * point.latency_ms) for point in points]
    found, scaled = adapted_curves(source, points), adapted_curves(source, other)
    for key, curve in found.items():
        assert scaled[key].latencies_ms == pytest.approx([unit * ms for ms in curve.latencies_ms], rel=1e-6)


@given(st.integers(0, 20), st.sampled_from([1, 16]))
@settings(max_examples=15)
def test_wider_stays_slower_within_each_class(seed, alignment) -> None:
    source, random = made_table(alignment), np.random.default_rng(seed)
    points = observe(source, 4, lambda key, width: float(random.lognormal(-0.5, 0.3)), seed)
    for curve in adapted_curves(source, points).values():
        for aligned in (True, False):
            members = [
                ms
                for w, ms in zip(curve.widths, curve.latencies_ms, strict=True)
                if (w % curve.alignment == 0) is aligned
            ]
            assert (np.diff(members) > 0).all()


def test_the_devices_own_favored_widths_take_the_place_of_the_sources() -> None:
    """As from PyTorch with AVX-512 (16) to ONNX Runtime (4)."""
    source, plain = made_table(16), made_table()
    points = [
        point._replace(latency_ms=plain.operation_ms(point.key, point.width) * (0.3 if point.width % 4 == 0 else 0.9))
        for point in observe(source, 6, lambda key, width: 1.0)
    ]
    factors = fit_factors(source, points)
    assert factors.alignment == 4
    errors = []
    for key, curve in source.curves.items():
        found = factors.curve(key, curve)
        widths = np.arange(curve.widths[0], curve.widths[-1] + 1)
        truth = plain.curves[key].latency_ms(widths) * np.where(widths % 4 == 0, 0.3, 0.9)
        errors.append(abs(found.latency_ms(widths) / truth - 1))
    assert np.quantile(np.concatenate(errors), 0.95) < 0.05


@pytest.mark.parametrize("alignment", [1, 2, 4, 16])
def test_a_reclassed_curve_has_the_shape_of_each_class(alignment) -> None:
    for key, curve in made_table(16).curves.items():
        found = curve.reclassed(alignment)
        assert found.widths[0] >= curve.widths[0] and found.widths[-1] <= curve.widths[-1]
        for width, ms in zip(found.widths, found.latencies_ms, strict=True):
            share = 0.75 if alignment > 1 and width % alignment == 0 else 1.0
            assert ms == pytest.approx(share * made_ms(key, width), rel=0.12)  # lines between knots of a bent curve
        if alignment == 16:
            assert (found.widths, found.latencies_ms) == (curve.widths, curve.latencies_ms)


def test_tours_go_round_all_operations_and_both_kinds_of_widths() -> None:
    points = observe(made_table(), 6, lambda key, width: 1.0)
    assert {point.key for point in points} == set(RANGES)
    assert all(RANGES[point.key][0] <= point.width <= RANGES[point.key][1] for point in points)
    assert 0.3 < np.mean([point.width % 16 == 0 for point in points]) < 0.7


@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_first_networks_are_spread_over_all_latencies(count) -> None:
    source = made_table()
    networks = spread_by_latency(validation_networks(TF_NAS, 32, seed=0), source)
    assert sorted({n.name for n in networks}) == sorted(f"random-{i}" for i in range(1, 33))
    order = sorted(networks, key=source.latency_ms)
    shares = [order.index(network) / 31 for network in networks[:count]]
    assert min(shares) < 0.35 and max(shares) > 0.65


class TestOnAFakeDevice:
    """The whole way: tours, networks, the correction, and what the table says of itself."""

    @pytest.fixture
    def source(self, space, fake_device, make_measuring) -> LatencyTable:
        return replace(profile_space(space, make_measuring(fake_device())).table, device="another")

    def test_base_and_blocks_of_a_device_three_times_as_fast(self, space, source, fake_device, make_measuring) -> None:
        measuring = make_measuring(fake_device(lambda cost, now: cost / 3), validation_networks=8)
        table, rows = adapt(source, space, measuring, samples=12, seed=0)
        assert table.device != "another" and table.base_ms == pytest.approx(source.base_ms / 3)
        for key, curve in table.curves.items():
            assert curve.latencies_ms == pytest.approx([ms / 3 for ms in source.curves[key].latencies_ms], rel=0.01)
        facts = table.details[ADAPTED_FROM]
        assert (facts["device"], facts["samples"], facts["tours"]) == ("another", 12, 6)
        assert len(rows) == 6 and facts["point_error_percent"] < 1
        table.check_fits(space, 16, source="test")

    def test_whole_networks_that_take_more_than_the_sum_correct_it(
        self, space, source, fake_device, make_measuring
    ) -> None:
        class Slower(fake_device):
            """A whole network takes 1.4 times what its parts take one by one."""

            def prepare(self, module, example):
                run = super().prepare(module, example)
                if not hasattr(module, "blocks"):
                    return run
                cost_ms = 1.4 * self.total_ms(module)
                return lambda: setattr(self, "now_ms", self.now_ms + cost_ms)

            def total_ms(self, module) -> float:
                blocks = tuple(block.block for block in module.blocks)
                return table_ms[next(network.name for network in networks if network.blocks == blocks)]

        networks = validation_networks(space, 8, seed=0)
        table_ms = {network.name: source.latency_ms(network) for network in networks}
        measuring = make_measuring(Slower(), validation_networks=8, calibrated=True)
        table, rows = adapt(source, space, measuring, samples=16, seed=0)
        assert table.details["calibration"]["applied"] is True
        assert [row.table_ms for row in rows] == pytest.approx([row.measured_ms for row in rows], rel=0.02)

    def test_a_killed_one_resumes_where_it_was(self, space, source, fake_device, make_measuring, tmp_path) -> None:
        networks = validation_networks(space, 4, seed=0)

        def run(samples: int, journal) -> LatencyTable:
            measuring = make_measuring(fake_device(), journal=journal)
            return adapt_table(source, space, measuring, networks=networks, samples=samples).table

        run(6, tmp_path / "journal.jsonl")
        resumed, whole = run(10, tmp_path / "journal.jsonl"), run(10, None)
        assert resumed.base_ms == pytest.approx(whole.base_ms)
        for key, curve in whole.curves.items():
            assert resumed.curves[key].latencies_ms == pytest.approx(curve.latencies_ms)
        assert resumed.details[ADAPTED_FROM]["samples"] == 10

    def test_some_samples_are_taken_whatever_the_budget(self, space, source, fake_device, make_measuring) -> None:
        measuring = make_measuring(fake_device(), minutes=1e-9)
        adapt_table(source, space, measuring, networks=validation_networks(space, 4, seed=0))
        assert len(measuring.visits) == LEAST_SAMPLES
        assert {visit.is_tour for visit in measuring.visits} == {True, False}


def test_parts_of_a_tour_are_those_of_the_space() -> None:
    assert {"stem", "head", "classifier"} <= set(fixed_parts(load_space("tf-nas-tiny"), 16, 3, 1))


SHIPPED = "tf-nas-tiny-epyc-torch"


def test_the_command_adapts_a_shipped_table_and_says_how_far_off_it_is(tmp_path, capsys) -> None:
    path = tmp_path / "t.json"
    options = ["--minutes", "0.01", "--repeats", "2", "--warmup-runs", "1", "--on-busy", "warn", "--batch-size", "2"]
    assert main(["profile", "--from", SHIPPED, "--out", str(path), *options]) == 0
    table, text = LatencyTable.load(path), capsys.readouterr().out
    assert (table.space, table.resolution, table.batch_size) == ("tf-nas-tiny", 16, 2)
    assert table.details["num_classes"] == 10 and table.details[ADAPTED_FROM]["batch_size"] == 32
    assert "Adapted from the table of AMD EPYC (torch-eager)" in text and "are within 5 %" in text
    assert not path.with_name("t.json.partial").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from", SHIPPED, "--resolution", "32"], "--resolution 32: tf-nas-tiny-epyc-torch was measured at 16"),
        (["--from", SHIPPED, "--space", "tf-nas"], "is of space tf-nas-tiny, not of tf-nas"),
        (["--from", "none.json"], "none.json: cannot be read"),
        (["--from", "tf-nas-tiny"], "neither a file nor a shipped table; did you mean tf-nas-tiny-epyc-torch?"),
        ([], "name a space, --space tf-nas, or a table to adapt, --from FILE"),
    ],
)
def test_mistakes_are_one_line_before_measuring(tmp_path, capsys, options, words) -> None:
    assert main(["profile", "--out", str(tmp_path / "t.json"), *options]) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1
    assert not list(tmp_path.iterdir())
