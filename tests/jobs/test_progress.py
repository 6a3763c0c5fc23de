"""Progress: every item goes through once; the log says how far a job is and how long it will take."""

from __future__ import annotations

import logging

from tfnas.jobs import progress


def test_items_go_through_and_the_end_is_logged(caplog) -> None:
    with caplog.at_level(logging.INFO, logger="tfnas"):
        assert list(progress.track(iter("abc"), label="work", total=3, unit="letter")) == ["a", "b", "c"]
    (line,) = caplog.messages
    assert line.startswith("work: 3/3 letters, ") and line.endswith("0 s left")


def test_a_long_job_is_logged_on_the_way(caplog, monkeypatch) -> None:
    times = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with caplog.at_level(logging.INFO, logger="tfnas"):
        list(progress.track(range(10), label="work", total=10))
    assert caplog.messages[0] == "work: 2/10 steps, 12 s so far, 48 s left"
    assert len(caplog.messages) == 5
