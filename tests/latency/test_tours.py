"""Where an operation is measured: ends, classes, both sides of a jump; favored widths in noise; drift taken out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfnas.latency.table import OperationKey
from tfnas.latency.tours import (
    ALIGNMENTS,
    INNER,
    NETWORK,
    Visit,
    classes,
    estimate,
    find_alignment,
    first_knots,
    further_knots,
    network_visit,
    widths_to_compare,
)

KEY = OperationKey(8, 4, 4, 3, 1, 0, "relu")
TRUE = {("stem", 0): 2.0, ("head", 0): 1.0, **{(KEY, width): 0.1 * width for width in range(10, 34)}}


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


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 4, 8]), st.sampled_from([1, 4, 16]), st.integers(1, 900)
)
def test_knots_of_a_space_at_multiples_are_its_widths(low, span, multiple, alignment, in_channels) -> None:
    widths = range(low * multiple, (low + span) * multiple + 1, multiple)
    knots = first_knots(widths[0], widths[-1], in_channels, alignment, multiple=multiple)
    assert {widths[0], widths[-1]} <= set(knots) <= set(widths)
    narrow, wide = [w for w in widths if w <= in_channels], [w for w in widths if w > in_channels]
    if narrow and wide:
        assert {narrow[-1], wide[0]} <= set(knots)
    latencies = {width: 1.0 + (width % 3) for width in knots}
    assert set(further_knots(latencies, alignment, 1e-9, multiple=multiple)) <= set(widths) - set(knots)


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


RANGES = ((32, 128), (80, 320), (160, 640), (384, 1536))  # of layers of Table 1


def test_widths_to_compare_are_in_range_and_of_every_class() -> None:
    for low, high in (*RANGES, (17, 64), (30, 65)):
        widths = widths_to_compare(low, high)
        assert widths == sorted(set(widths)) and low <= widths[0] and widths[-1] <= high
        assert all(sum(width % alignment == 0 for width in widths) >= 2 for alignment in ALIGNMENTS)
        assert sum(width % 2 for width in widths) >= 4
    assert widths_to_compare(17, 46) == []


def measured(alignment, gains, noise, random):
    """Latencies of an operation per gain; one in twenty disturbed."""
    curves = []
    for (low, high), gain in zip(RANGES, gains, strict=True):
        widths = np.array(widths_to_compare(low, high))
        factors = np.exp(noise * random.normal(size=len(widths))) * (1 + 0.3 * (random.random(len(widths)) < 0.05))
        latencies = (10 + widths) * (1 - gain * (widths % alignment == 0)) * factors
        curves.append(dict(zip(widths.tolist(), latencies.tolist(), strict=True)))
    return curves


@pytest.mark.parametrize("noise", [0.01, 0.03])
@pytest.mark.parametrize(
    ("alignment", "gains"),
    [
        (
            16,
            (0.22, 0.12, 0.03, 0.03),
        ),  # PyTorch with AVX-512: a fifth in the first layers, next to nothing in the last
        (8, (0.1, 0.1, 0.05, 0.02)),
        (4, (0.33, 0.33, 0.33, 0.33)),
        (2, (0.1, 0.1, 0.1, 0.1)),
        (1, (0, 0, 0, 0)),
    ],
)
def test_found_in_noise(alignment, gains, noise) -> None:
    random = np.random.default_rng(0)
    found = [find_alignment(measured(alignment, gains, noise, random)) for _ in range(40)]
    assert np.mean(np.array(found) == alignment) >= 0.9


def make_visits(offsets, *, noise=0.0, seed=0, networks=()):
    random, visits = np.random.default_rng(seed), []
    for number, offset in enumerate(offsets):
        points = [
            ("stem", 0),
            *((KEY, int(w)) for w in random.choice(np.arange(10, 34), 16, replace=False)),
            ("head", 0),
        ]
        factors = (1 + offset) * np.exp(noise * random.normal(size=len(points)))
        visits.append(Visit(tuple(points), tuple(TRUE[p] * f for p, f in zip(points, factors, strict=True)), 1.0, 0.1))
        if number in networks:  # in a moment of its own
            points = network_visit(["stem", (KEY,), "head"], 0)
            known = TRUE | {(NETWORK, 0): 7.0}
            visits.append(Visit(points, tuple(known[point] * (1 - offset) for point in points), 1.0, 0.1))
    return visits


def test_drift_is_taken_out_exactly() -> None:
    offsets = 0.3 * np.sin(np.arange(60) / 7)
    visits = make_visits(offsets, networks=range(0, 60, 3))
    found = estimate(visits)
    common = found.points["stem", 0].latency_ms / 2.0
    for point, ms in TRUE.items():
        assert found.points[point].latency_ms / common == pytest.approx(ms)
    assert found.points[NETWORK, 0].latency_ms / common == pytest.approx(7.0)
    of_tours = np.array([drift for drift, v in zip(found.drift, visits, strict=True) if v.is_tour])
    assert (1 + of_tours) * common == pytest.approx(1 + offsets)


def test_outliers_and_missing_runs_do_not_count() -> None:
    visits = make_visits(np.zeros(40))
    spoilt = [v._replace(latencies_ms=tuple(ms * (5 if i == n % 18 else 1) for i, ms in enumerate(v.latencies_ms)))
              for n, v in enumerate(visits)]  # fmt: skip
    spoilt[0] = spoilt[0]._replace(latencies_ms=(float("nan"),) * 18)
    found = estimate(spoilt)
    assert {p: e.latency_ms for p, e in found.points.items()} == pytest.approx(TRUE)
    assert sum(e.outliers for e in found.points.values()) == 39


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_interval_covers_the_truth_about_as_often_as_it_says(noise) -> None:
    covered = []
    for seed in range(60):
        points = estimate(make_visits(np.zeros(40), noise=noise, seed=seed)).points
        covered += [abs(np.log(points[p].latency_ms / ms)) <= points[p].uncertainty for p, ms in TRUE.items() if p[1]]
    assert 0.85 < np.mean(covered) < 0.99


def test_order_of_visits_of_a_steady_machine_does_not_matter() -> None:
    visits = make_visits(np.zeros(30), noise=0.02)
    shuffled = [visits[i] for i in np.random.default_rng(1).permutation(30)]
    one, other = estimate(visits), estimate(shuffled)
    assert {p: e.latency_ms for p, e in one.points.items()} == pytest.approx(
        {p: e.latency_ms for p, e in other.points.items()}
    )
