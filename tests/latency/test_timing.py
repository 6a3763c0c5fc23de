"""Timing: what is counted and what is outvoted; and rounds: every probe once per round, in a new order each time."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tfnas.compute.devices import time_calls
from tfnas.latency.timing import ROUNDS, Probe, Timer, Timing, measuring, split_repeats, time_probes

MS = st.floats(0.01, 100)


@given(st.lists(st.lists(MS, min_size=1, max_size=9), min_size=1, max_size=7))
def test_timing_is_the_median_of_the_rounds_medians(rounds) -> None:
    timing = Timing.of_rounds(rounds)
    every = sorted(ms for samples in rounds for ms in samples)
    medians = sorted(sorted(s)[len(s) // 2] / 2 + sorted(s)[(len(s) - 1) // 2] / 2 for s in rounds)
    assert timing.median_ms == pytest.approx((medians[len(medians) // 2] + medians[(len(medians) - 1) // 2]) / 2)
    assert timing.repeats == len(every)
    assert 0 <= timing.spread_ms <= every[-1] - every[0] + 1e-9


@given(st.lists(MS, min_size=3, max_size=5), st.floats(1, 1e6))
def test_one_disturbed_round_is_outvoted(samples, slowdown) -> None:
    disturbed = [slowdown * ms for ms in samples]
    assert Timing.of_rounds([samples, disturbed, samples]).median_ms == pytest.approx(np.median(samples))


def test_warm_up_runs_do_not_count() -> None:
    costs = iter([50.0, 40.0, 1.0, 2.0, 3.0])
    timer = Timer(torch.device("cpu"), 2, lambda device, run, repeats: [run() for _ in range(repeats)])
    assert timer.samples_ms(lambda: next(costs), 3) == [1.0, 2.0, 3.0]


def test_calls_are_timed_one_by_one_on_the_cpu(monkeypatch) -> None:
    clock = {"now": 5.0}
    monkeypatch.setattr("tfnas.compute.devices.time.perf_counter", lambda: clock["now"])
    costs = iter([0.25, 0.5, 0.125])

    def run() -> None:
        clock["now"] += next(costs)

    assert time_calls(torch.device("cpu"), run, 3) == [250.0, 500.0, 125.0]


def test_cuda_calls_are_timed_between_events_and_waited_for_once(monkeypatch) -> None:
    """The seam without a GPU: a queue that takes 2, 3, 4 ms of device time, launched in no time."""
    log: list[str] = []
    device_ms = [0.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("record")
            self.at_ms = sum(device_ms)

        def elapsed_time(self, end: Event) -> float:
            assert log[-1] == "synchronize"
            return end.at_ms - self.at_ms

    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    monkeypatch.setattr("torch.cuda.synchronize", lambda: log.append("synchronize"))
    costs = iter([2.0, 3.0, 4.0])

    def run() -> None:
        log.append("run")
        device_ms.append(next(costs))

    assert time_calls(torch.device("cuda"), run, 3) == [2.0, 3.0, 4.0]
    assert log == ["synchronize", "record", *["run", "record"] * 3, "synchronize"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_cuda_events_see_the_work_and_not_only_its_launch() -> None:
    device = torch.device("cuda")
    square = torch.ones(4096, 4096, device=device)
    few, many = (min(time_calls(device, lambda n=n: [square @ square for _ in range(n)], 5)[1:]) for n in (1, 10))
    assert many > 3 * few


def test_measuring_leaves_everything_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with pytest.raises(KeyError), measuring(before + 1):
        assert torch.get_num_threads() == before + 1
        assert torch.is_inference_mode_enabled() and not gc.isenabled()
        torch.rand(7)
        raise KeyError
    assert torch.get_num_threads() == before
    assert gc.isenabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(torch.rand(4), expected)


def test_memory_is_kept_while_measuring(monkeypatch) -> None:
    """Handed back to the system, it cost some networks a quarter to a third and others nothing."""
    asked = []
    monkeypatch.setattr("tfnas.latency.timing.keep_freed_memory", lambda: asked.append(True))
    with measuring(1):
        assert asked == [True]


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
