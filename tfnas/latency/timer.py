"""Timing a callable on a device: warm-up, repeats, several rounds, robust summaries."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from tfnas.compute.devices import keep_freed_memory, time_calls, warn_of_threads

Stopwatch = Callable[[torch.device, Callable[[], object], int], Sequence[float]]


class Timing(NamedTuple):
    """What was measured of one callable."""

    median_ms: float
    spread_ms: float  # interquartile range of all repeats
    repeats: int

    @classmethod
    def of_rounds(cls, rounds: Sequence[Sequence[float]]) -> Timing:
        """The median over the rounds of each round's median.

        A round that something else on the machine disturbed is outvoted as a whole. Medians and not
        minima: a network pays the usual price of its blocks, not the best one.
        """
        median_ms = float(np.median([np.median(samples_ms) for samples_ms in rounds]))
        every = np.concatenate([np.asarray(samples_ms, dtype=float) for samples_ms in rounds])
        low, high = np.quantile(every, (0.25, 0.75))
        return cls(median_ms, float(high - low), len(every))


@dataclass(frozen=True)
class Timer:
    """Times callables on one device; `stopwatch` does the clock's part."""

    device: torch.device
    warmup_runs: int
    stopwatch: Stopwatch = time_calls

    def samples_ms(self, run: Callable[[], object], repeats: int) -> list[float]:
        """Milliseconds of each of `repeats` runs, after the warm-up."""
        if self.warmup_runs:
            self.stopwatch(self.device, run, self.warmup_runs)
        return list(self.stopwatch(self.device, run, repeats))


@contextmanager
def measuring(threads: int) -> Iterator[None]:
    """What holds while anything is timed: `threads` CPU threads, no autograd, no garbage collection.

    Threads, random state and garbage collection are afterwards as they were. The process keeps the memory it frees,
    from here on: handed back to the system, it is filled with zeros at the next run, page by page. That costs some
    networks of Table 1 a quarter to a third more and others nothing, by what lies at the heap's end.
    """
    keep_freed_memory()
    threads_before, collects = torch.get_num_threads(), gc.isenabled()
    warn_of_threads(threads)
    torch.set_num_threads(threads)
    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads_before)
        if collects:
            gc.enable()
