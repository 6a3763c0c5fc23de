"""Whether the machine is busy, runs that were interrupted, and a profile that resumes from what it has measured."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest
import torch

from tfnas.compute.devices import time_sequence
from tfnas.jobs.errors import UserError
from tfnas.latency.measuring import BUSY_SECONDS, Journal
from tfnas.latency.profiler import profile_space
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


class Killed(Exception):
    pass


def killed_after(device, number):
    """The device, of which the machine is switched off after so many modules."""
    prepare = device.prepare

    def prepare_or_die(module, example):
        if len(device.costs_ms) == number:
            raise Killed
        return prepare(module, example)

    device.prepare = prepare_or_die
    return device


@pytest.mark.parametrize("share", [0.7, 0.85, 0.97])
def test_killed_profile_ends_with_the_same_table(space, fake_device, make_measuring, tmp_path, share) -> None:
    path, undisturbed = tmp_path / "visits", fake_device()
    expected = profile_space(space, make_measuring(undisturbed)).table
    number = int(share * len(undisturbed.costs_ms))
    with pytest.raises(Killed):
        profile_space(space, make_measuring(killed_after(fake_device(), number), journal=path))
    kept = len(path.read_text().splitlines()) - 1
    again = fake_device()
    measuring = make_measuring(again, journal=path)
    assert len(measuring.visits) == kept > 1
    table = profile_space(space, measuring).table
    assert {key: curve.widths for key, curve in table.curves.items()} == {
        key: curve.widths for key, curve in expected.curves.items()
    }
    for key, curve in table.curves.items():
        assert curve.latencies_ms == pytest.approx(expected.curves[key].latencies_ms)
    assert len(again.costs_ms) <= len(undisturbed.costs_ms) - number + 20  # at most the broken tour a second time
    measuring.discard()
    assert not path.exists()


def test_cut_line_is_forgotten_and_others_stay(tmp_path) -> None:
    path, visit = tmp_path / "visits", Visit((("stem", 0), ("head", 0)), (1.5, float("nan")), 0.5, 2.0)
    journal = Journal(path, {"device": "a"})
    for _ in range(3):
        journal.append(visit)
    whole = path.read_text()
    path.write_text(whole[:-7])
    resumed = Journal(path, {"device": "a"})
    assert len(resumed.visits) == 2 and resumed.visits[0].points == visit.points
    resumed.append(visit)
    assert path.read_text() == whole


@pytest.mark.parametrize("text", ["", "{}\n", "not json\n", '{"device": "a"}\n{"points": 3}\n'])
def test_measurements_of_something_else_do_not_count(tmp_path, text) -> None:
    path = tmp_path / "visits"
    path.write_text(text)
    journal = Journal(path, {"device": "a"})
    assert journal.visits == []
    visit = Visit((("stem", 0),), (1.0,), 1.0, 1.0)
    journal.append(visit)
    assert Journal(path, {"device": "a"}).visits == [visit] and Journal(path, {"device": "b"}).visits == []
