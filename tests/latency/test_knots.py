"""Where an operation is measured: ends, both classes, both sides of the jump, and where lines fail."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfnas.latency.tours import INNER, classes, first_knots, further_knots


@given(st.integers(2, 400), st.integers(1, 400), st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 900))
def test_first_knots_hold_the_ends_of_each_class_and_both_sides_of_the_jump(low, span, alignment, in_channels) -> None:
    high = low + span
    knots = first_knots(low, high, in_channels, alignment)
    assert list(knots) == sorted(set(knots)) and (knots[0], knots[-1]) == (low, high)
    for members in classes(range(low, high + 1), alignment):
        same = [knot for knot in knots if (knot % alignment == 0) == (members[0] % alignment == 0)]
        assert {members[0], members[-1]} <= set(knots) and len(same) >= min(len(members), INNER + 2)
    if low <= in_channels < high:
        assert {in_channels, in_channels + 1} <= set(knots)


@given(st.floats(0.1, 9), st.floats(0, 1), st.sampled_from([1, 4, 16]))
def test_lines_need_no_further_knots(base, slope, alignment) -> None:
    knots = first_knots(24, 192, 24, alignment)
    latencies = {width: (1 + (width % alignment == 0)) * (base + slope * width) for width in knots}
    assert further_knots(latencies, alignment, 1e-9) == {}


@given(st.integers(30, 180), st.sampled_from([1, 4, 8]))
def test_refining_encloses_a_step(step, alignment) -> None:
    def latency(width):
        return 1.0 + (width >= step) + (width % alignment == 0)

    knots = set(first_knots(24, 192, 24, alignment))
    for _ in range(40):
        further = further_knots({width: latency(width) for width in sorted(knots)}, alignment, 0.001)
        assert not set(further) & knots
        if not further:
            break
        knots |= set(further)
    assert not further
    for members in classes(sorted(knots), alignment):
        values = np.array([latency(width) for width in members])
        left = int(np.flatnonzero(np.diff(values) > 0.5)[0]) if (np.diff(values) > 0.5).any() else None
        if left is not None:
            assert members[left + 1] - members[left] <= max(2, alignment)
