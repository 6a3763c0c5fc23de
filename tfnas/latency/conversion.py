"""Converting ahead, on all cores, what will be measured, for runtimes that take seconds for each block."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache

import torch

from tfnas.compute.devices import allowed_cpus
from tfnas.jobs.progress import track
from tfnas.latency.backends import BackendOptions, open_backend
from tfnas.latency.backends.kept import Keeping
from tfnas.latency.timing import Probe, build

FEWEST = 8  # probes that are worth the processes
PER_PROCESS = 100  # conversions, because converters hold on to memory
POLL_SECONDS = 1.0


def convert_ahead(backend: str, options: BackendOptions, probes: Sequence[Probe]) -> None:
    """Put the probes' files where the backend's `prepare` looks for them.

    Args:
        backend: the name of one that keeps files (`Keeping`).

    Raises:
        UserError: the backend cannot be opened here, or refuses a module.
    """
    if len(probes) < FEWEST:
        return
    for _ in track(_converted(backend, options, probes), label="convert", total=len(probes), unit="block"):
        pass


def _converted(backend: str, options: BackendOptions, probes: Sequence[Probe]) -> Iterator[None]:
    """Once for each probe, when it is done."""
    context = multiprocessing.get_context("spawn")  # a forked process would have torch's threads without their locks
    workers = min(allowed_cpus(), len(probes))
    share = workers * PER_PROCESS  # a new pool for each, because `max_tasks_per_child` of Python 3.11 leaves it empty
    for start in range(0, len(probes), share):
        with ProcessPoolExecutor(workers, context, _end_with, (os.getpid(),)) as pool:
            pending = [pool.submit(_convert, backend, options, probe) for probe in probes[start : start + share]]
            try:
                for done in as_completed(pending):
                    yield done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _end_with(parent: int) -> None:
    """A process of the pool whose parent was killed, even while it started, would wait for work forever."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _convert(backend: str, options: BackendOptions, probe: Probe) -> None:
    torch.set_num_threads(1)
    opened = _opened(backend, options)
    assert isinstance(opened, Keeping)
    with torch.inference_mode():
        opened.keep(*build(probe, torch.device("cpu")))


_opened = cache(open_backend)
