"""Rounds: every probe once a round, in a new order each time, and drift that does not become a slope."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tfnas.latency.timing import ROUNDS, Probe, Timer, split_repeats, time_probes


def linear_probes(count):
    """Probes that the fake device takes 0.001 ms times their number to run."""
    return {n: Probe(lambda n=n: nn.Linear(n, 1, bias=False), (1, n)) for n in range(100, 100 + count)}


def measure(device, probes, *, repeats=20, seed=0):
    timer = Timer(torch.device("cpu"), 1, device.stopwatch)
    return time_probes(probes, timer=timer, backend=device, repeats=repeats, seed=seed, label="test")


@given(st.integers(1, 500))
def test_repeats_are_shared_evenly(repeats) -> None:
    shares = split_repeats(repeats)
    assert sum(shares) == repeats and len(shares) == min(repeats, ROUNDS)
    assert max(shares) - min(shares) <= 1 and min(shares) >= 1


def test_every_round_visits_every_probe_once_in_an_order_of_its_own(fake_device) -> None:
    device = fake_device()
    measure(device, linear_probes(12))
    rounds = np.array(device.costs_ms).reshape(ROUNDS, 12)
    assert (np.sort(rounds, axis=1) == np.sort(rounds[0])).all()
    assert len({tuple(row) for row in rounds}) == ROUNDS
    again, other = fake_device(), fake_device()
    measure(again, linear_probes(12))
    measure(other, linear_probes(12), seed=1)
    assert again.costs_ms == device.costs_ms != other.costs_ms


def test_noiseless_device_is_measured_exactly(fake_device) -> None:
    for n, timing in measure(fake_device(), linear_probes(5), repeats=7).items():
        assert timing.median_ms == pytest.approx(1e-3 * n)
        assert timing.spread_ms == pytest.approx(0.0, abs=1e-9) and timing.repeats == 7


def test_a_slow_stretch_of_the_machine_changes_nothing(fake_device) -> None:
    total_ms = 20 * sum(1e-3 * n for n in range(100, 140))
    device = fake_device(lambda cost, now: cost * (5 if 0.4 < now / total_ms < 0.6 else 1))
    for n, timing in measure(device, linear_probes(40)).items():
        assert timing.median_ms == pytest.approx(1e-3 * n)


def test_drift_does_not_become_a_slope(fake_device) -> None:
    """A machine that slows by 50 % meanwhile: in order, the last probe would look 50 % slower than the first."""
    probes = linear_probes(60)
    total_ms = 30 * sum(1e-3 * n for n in probes)
    timings = measure(fake_device(lambda cost, now: cost * (1 + 0.5 * now / total_ms)), probes)
    factors = [timing.median_ms / (1e-3 * n) for n, timing in timings.items()]
    slope = np.polyfit(np.linspace(0, 1, 60), factors, 1)[0]
    assert abs(slope) < 0.05
    assert max(factors) - min(factors) < 0.1 < np.mean(factors) - 1
