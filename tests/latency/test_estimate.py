"""From visits to latencies: exact where the model holds, whatever the order and the drift."""

from __future__ import annotations

import numpy as np
import pytest

from tfnas.latency.estimate import estimate
from tfnas.latency.table import OperationKey
from tfnas.latency.tours import NETWORK, Visit

KEY = OperationKey(8, 4, 4, 3, 1, 0, "relu")
TRUE = {("stem", 0): 2.0, ("head", 0): 1.0, **{(KEY, width): 0.1 * width for width in range(10, 34)}}


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
        visits += [Visit(((NETWORK, 0),), (7.0 * (1 + offset),), 1.0, 0.1)] if number in networks else []
    return visits


def test_drift_is_taken_out_exactly() -> None:
    offsets = 0.3 * np.sin(np.arange(60) / 7)
    visits = make_visits(offsets, networks=range(0, 60, 3))
    found = estimate(visits)
    common = found.points["stem", 0].latency_ms / 2.0
    for point, ms in TRUE.items():
        assert found.points[point].latency_ms / common == pytest.approx(ms)
    assert found.points[NETWORK, 0].latency_ms / common == pytest.approx(7.0, rel=0.02)
    of_tours = np.array([drift for drift, v in zip(found.drift, visits, strict=True) if v.points[0][0] != NETWORK])
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
