"""A profile that was stopped goes on from what it has measured, and measures no more than an undisturbed one."""

from __future__ import annotations

import pytest

from tfnas.latency.measuring import Journal
from tfnas.latency.profiler import profile_space
from tfnas.latency.tours import Visit


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
