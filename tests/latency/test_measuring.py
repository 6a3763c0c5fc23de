"""Whether the machine is busy, and runs that were interrupted."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest
import torch

from tfnas.compute.devices import time_sequence
from tfnas.jobs.errors import UserError
from tfnas.latency.measuring import BUSY_SECONDS
from tfnas.latency.tours import Visit


def keep_visits(measuring, share) -> None:
    """Twice as many seconds of visits as it takes to judge."""
    for _ in range(20):
        measuring.keep(Visit((("stem", 0),), (1.0,), share, BUSY_SECONDS / 10))


def test_busy_machine_is_refused_with_advice_and_what_was_measured_is_kept(
    fake_device, make_measuring, tmp_path
) -> None:
    measuring = make_measuring(fake_device(), on_busy="refuse", journal=tmp_path / "v")
    with pytest.raises(UserError, match=r"got 60 % .*stop the others.*on_busy: warn"):
        keep_visits(measuring, 0.6)
    assert len(make_measuring(fake_device(), journal=tmp_path / "v").visits) == len(measuring.visits) >= 10


def test_busy_machine_is_told_once_where_that_is_enough(fake_device, make_measuring, monkeypatch) -> None:
    measuring, told = make_measuring(fake_device(), on_busy="warn"), []
    monkeypatch.setattr(logging.getLogger("tfnas.latency"), "warning", lambda text, *values: told.append(text % values))
    keep_visits(measuring, 0.6)
    assert len(told) == 1 and "got 60 %" in told[0]
    assert measuring.cpu_share == pytest.approx(0.6)


@pytest.mark.parametrize("on_busy", ["warn", "refuse"])
def test_idle_machine_is_told_nothing(fake_device, make_measuring, caplog, on_busy) -> None:
    keep_visits(make_measuring(fake_device(), on_busy=on_busy), 0.97)
    assert not caplog.records


def test_call_that_waited_counts_by_what_it_computed() -> None:
    """A sleeping thread does not compute, as one whose processor was given away."""
    cpu = torch.device("cpu")

    def compute() -> float:
        return float(np.linalg.norm(np.ones((60, 60)) @ np.ones((60, 60))))

    times = time_sequence(cpu, [compute, lambda: time.sleep(0.005)], 6)
    assert times.shape == (6, 2) and (times > 0).all() and (times[:, 1] < 5.0).all()
    elsewhere = time_sequence(cpu, [lambda: time.sleep(0.005)], 3, here=False)
    assert (elsewhere >= 5.0).all()


def test_calls_are_made_in_turn() -> None:
    made: list[int] = []
    time_sequence(torch.device("cpu"), [lambda i=i: made.append(i) for i in range(3)], 2)
    assert made == [0, 1, 2, 0, 1, 2]
