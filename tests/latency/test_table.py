"""The table: round trip, interpolation against an independent one, Eq. 4, and errors that name the thing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfnas.jobs.errors import UserError
from tfnas.latency import Curve, LatencyTable, OperationKey, reachable_range_ms, resolve_target_ms
from tfnas.latency.profiler import operation_ranges
from tfnas.latency.table import FIXED_PARTS
from tfnas.latency.validation import random_architecture


@pytest.fixture(scope="module")
def table(space) -> LatencyTable:
    random = np.random.default_rng(0)
    curves = {}
    for key, (low, high) in operation_ranges(space, 16).items():
        widths = tuple(sorted({low, high, *random.integers(low, high, 3).tolist()}))
        latencies, spreads = (tuple(random.random(len(widths)).tolist()) for _ in range(2))
        curves[key] = Curve(widths, latencies, spreads, tuple(range(1, len(widths) + 1)))
    return LatencyTable("tiny", 16, 2, "a device", 0.75, curves, details={"threads": 1})


def test_round_trip_keeps_everything(table, tmp_path) -> None:
    table.save(tmp_path / "table.json")
    loaded = LatencyTable.load(tmp_path / "table.json")
    assert loaded == table and loaded.details == table.details
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "table.json").read_bytes()


@given(st.dictionaries(st.integers(1, 500), st.floats(-1, 100), min_size=1, max_size=8))
def test_interpolation_is_linear_between_knots(knots) -> None:
    widths = tuple(sorted(knots))
    curve = Curve(widths, tuple(knots[width] for width in widths))
    for width in range(widths[0], widths[-1] + 1):
        right = next(knot for knot in widths if knot >= width)
        left = max(knot for knot in widths if knot <= width)
        share = (width - left) / (right - left) if right > left else 0.0
        expected = pytest.approx(knots[left] * (1 - share) + knots[right] * share, abs=1e-9)
        assert curve.latency_ms(width) == expected
        assert curve.dense_ms[width - widths[0]] == expected
    assert len(curve.dense_ms) == widths[-1] - widths[0] + 1


def test_latency_is_base_and_the_sum_over_the_searched_blocks(table, space) -> None:
    """Eq. 4, against numpy's interpolation of the numbers in the file."""
    random = np.random.default_rng(1)
    for _ in range(20):
        architecture = random_architecture(space, "random", random)
        size, total = 8, 0.75
        for block in architecture.blocks:
            if block.stage != 2:
                facts = (size, block.in_channels, block.out_channels, block.kernel, block.stride)
                curve = table.curves[OperationKey(*facts, block.se_channels, block.act)]
                total += np.interp(block.expand_channels, curve.widths, curve.latencies_ms)
            size = -(-size // block.stride)
        assert table.latency_ms(architecture) == pytest.approx(total)
        assert [block for block, _ in table.blocks_ms(architecture)] == list(architecture.blocks[1:])


def test_every_network_lies_in_the_reachable_range(table, space) -> None:
    low, high = reachable_range_ms(space, table)
    random = np.random.default_rng(2)
    latencies = [table.latency_ms(random_architecture(space, "random", random)) for _ in range(200)]
    assert low <= min(latencies) and max(latencies) <= high


def test_a_relative_target_is_reachable_whatever_the_table(table, space) -> None:
    low, high = reachable_range_ms(space, table)
    places = [0.0, 0.02, 0.5, 1.0]
    for base_ms in (-0.5, 0.0, 0.75, 1000.0):
        moved = replace(table, base_ms=base_ms)
        targets = [resolve_target_ms("A", None, relative, space, moved) for relative in places]
        wanted = [low + place * (high - low) + base_ms - table.base_ms for place in places]
        assert targets == pytest.approx(wanted)
        assert reachable_range_ms(space, moved) == pytest.approx((targets[0], targets[-1]))


def test_a_latency_is_a_target_as_it_is_and_out_of_reach_names_the_range(table, space) -> None:
    low, high = reachable_range_ms(space, table)
    assert resolve_target_ms("A", low + 0.1, None, space, table) == low + 0.1
    for latency_ms in (low / 2, high * 2):
        with pytest.raises(UserError, match=rf"targets.A.constraint.latency_ms: .* {low:.3f} to {high:.3f}"):
            resolve_target_ms("A", latency_ms, None, space, table)


def test_unknown_operation_is_named_with_resolution_and_device(table) -> None:
    key = OperationKey(8, 4, 6, 7, 2, 0, "relu")
    with pytest.raises(UserError, match=r"a device .*tiny, input 16x16.* no operation k7 s2 4->6 relu at 8x8"):
        table.operation_ms(key, 10)


def test_width_outside_the_measured_ones_is_named(table) -> None:
    key, curve = next(iter(table.curves.items()))
    for width in (curve.widths[0] - 1, curve.widths[-1] + 1):
        with pytest.raises(UserError, match=f"width {width} of operation .* {curve.widths[0]} to {curve.widths[-1]}"):
            table.operation_ms(key, width)


def test_another_resolution_or_space_does_not_fit(table, space) -> None:
    table.check_fits(space, 16, source="x.json")
    with pytest.raises(UserError, match=r"x.json: was measured at resolution 16, .* 32; run profile_latency"):
        table.check_fits(space, 32, source="x.json")
    partial = LatencyTable("tiny", 16, 2, "a device", 0.75, dict(list(table.curves.items())[1:]))
    with pytest.raises(UserError, match="has no operation"):
        partial.check_fits(space, 16, source="x.json")


@pytest.mark.parametrize("damage", ["cut", "kind", "key", "row"])
def test_damaged_file_is_one_clear_error(table, tmp_path, damage) -> None:
    path = tmp_path / "table.json"
    table.save(path)
    payload = json.loads(path.read_text())
    if damage == "kind":
        payload["kind"] = "architecture"
    elif damage == "key":
        del payload["base_ms"]
    elif damage == "row":
        del payload["operations"][0]["widths"]
    text = json.dumps(payload)
    path.write_text(text[: len(text) // 2] if damage == "cut" else text)
    with pytest.raises(UserError, match=r"table\.json") as caught:
        LatencyTable.load(path)
    assert "\n" not in str(caught.value)


def test_a_space_whose_fixed_parts_were_edited_does_not_fit(table, space, tmp_path) -> None:
    """Stem, head and fixed stages are in `base_ms` and have no operation of their own in the table."""
    replace(table, details={FIXED_PARTS: space.fixed_content()}).save(tmp_path / "table.json")
    loaded = LatencyTable.load(tmp_path / "table.json")
    loaded.check_fits(space, 16, source="x.json")
    for key, edited in {
        "head.act": replace(space, head=replace(space.head, act="relu6")),
        "stem.act": replace(space, stem=replace(space.stem, act="relu6")),
        "head.out_channels": replace(space, head=replace(space.head, out_channels=space.head.out_channels + 1)),
    }.items():
        with pytest.raises(UserError, match=f"x.json: was measured before space .* was edited: {key} was"):
            loaded.check_fits(edited, 16, source="x.json")
        table.check_fits(edited, 16, source="x.json")  # which does not say of what its fixed part is
