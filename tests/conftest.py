"""What all tests have in common: the order in which they run, no deadline for an example, and a logger as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import settings

settings.register_profile("tfnas", deadline=None)  # a busy machine takes its time; no example is wrong for that
settings.load_profile("tfnas")


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    """A job that runs in the test's process takes the logger for its file; later tests would find `caplog` empty.

    Before a test as well as after it, since a fixture of wider scope may have run a job.
    """
    give_back_logger()
    yield
    give_back_logger()


def give_back_logger() -> None:
    """The library's loggers as they are when no job has run: none with a level or handlers, nothing disabled.

    The root has its own level again too, which DVC's Hydra and absl, with the converters, set.
    """
    logging.disable(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)
    for name in ("tfnas", *(name for name in logging.root.manager.loggerDict if name.startswith("tfnas."))):
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.propagate, logger.disabled, logger.handlers[:] = True, False, []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the slow tests to the processes, to begin with: none is to be left alone with them at the end.

    pytest-xdist gives each process as many tests in a row, and those that are done take from the others' ends.
    """
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    slow = [item for item in items if item.get_closest_marker("slow")]
    fast = iter([item for item in items if not item.get_closest_marker("slow")])
    dealt: list[pytest.Item] = []
    for process in range(processes):
        hand = slow[process::processes]
        size = (len(items) - len(dealt)) // (processes - process)
        dealt += hand + list(islice(fast, max(0, size - len(hand))))
    items[:] = dealt + list(fast)
