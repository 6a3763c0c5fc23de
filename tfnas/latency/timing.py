"""Timing modules fairly on one device: warm-up, repeats, several rounds in random order, robust summaries."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from tfnas.compute.devices import keep_freed_memory, time_calls, warn_of_threads
from tfnas.jobs.progress import track
from tfnas.latency.backends import Backend
from tfnas.latency.backends.registry import Stopwatch

ROUNDS = 10  # at most, sharing the repeats; two tables agree better with ten rounds than with five
Key = TypeVar("Key", bound=Hashable)


class Probe(NamedTuple):
    """One module to be measured."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]  # (N, C, H, W)


class Timing(NamedTuple):
    """What was measured of one callable."""

    median_ms: float
    spread_ms: float  # interquartile range of all repeats
    repeats: int

    @classmethod
    def of_rounds(cls, rounds: Sequence[Sequence[float]]) -> Timing:
        """The median over the rounds of each round's median.

        A round that something else disturbed is outvoted as a whole. Medians, not minima: a network pays the usual
        price of its blocks, not the best one.
        """
        median_ms = float(np.median([np.median(samples_ms) for samples_ms in rounds]))
        every = np.concatenate([np.asarray(samples_ms, dtype=float) for samples_ms in rounds])
        low, high = np.quantile(every, (0.25, 0.75))
        return cls(median_ms, float(high - low), len(every))


@dataclass(frozen=True)
class Timer:
    """Times callables on one device, with a stopwatch."""

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
    """The conditions of every timing: `threads` CPU threads, no autograd, garbage collection off.

    Threads, random state and garbage collection are restored afterward. From here on the process keeps the memory that
    it frees: memory handed back to the system comes back filled with zeros, page by page, which makes some networks of
    Table 1 a quarter to a third slower and others not at all, depending on what is at the end of the heap.
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


def time_probes(
    probes: Mapping[Key, Probe], *, timer: Timer, backend: Backend, repeats: int, seed: int, label: str
) -> dict[Key, Timing]:
    """Measure every probe `repeats` times, spread over the rounds; call it under `measuring`.

    Every round visits the probes in its own order, so that a drift of the machine's speed spreads over all of them
    instead of looking like a dependence on the width. Each visit builds the module again, which costs about two runs:
    no probe keeps one lucky or unlucky place in memory.
    """
    shares = split_repeats(repeats)
    samples: dict[Key, list[list[float]]] = {key: [] for key in probes}
    visits = list(_visits(list(probes), len(shares), seed))
    for number, key in track(visits, label=label, total=len(visits), unit="measurement"):
        run = backend.prepare(*build(probes[key], timer.device))
        samples[key].append(timer.samples_ms(run, shares[number]))
    return {key: Timing.of_rounds(rounds) for key, rounds in samples.items()}


def _visits(keys: list[Key], rounds: int, seed: int) -> Iterator[tuple[int, Key]]:
    random = np.random.default_rng(seed)
    for number in range(rounds):
        for index in random.permutation(len(keys)):
            yield number, keys[index]


def split_repeats(repeats: int) -> list[int]:
    """Repeats of each round, as even as possible; no round is empty."""
    rounds = min(ROUNDS, repeats)
    return [repeats // rounds + (number < repeats % rounds) for number in range(rounds)]


def build(probe: Probe, device: torch.device) -> tuple[nn.Module, torch.Tensor]:
    """The module in eval mode and an example input, both on the device; always with the same random weights.

    A backend that takes seconds to convert a module recognizes one that it has seen (`backends/converted.py`).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _build(probe, device)


def _build(probe: Probe, device: torch.device) -> tuple[nn.Module, torch.Tensor]:
    return probe.build().eval().to(device), torch.randn(probe.input_shape, device=device)
