"""Measuring many modules fairly: in several rounds, each in its own random order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from tfnas.latency.backends import Backend
from tfnas.latency.timer import Timer, Timing
from tfnas.runtime.progress import track

ROUNDS = 10  # at most; each holds its share of the repeats. Of two tables, ten rounds agree better than five do

Key = TypeVar("Key", bound=Hashable)


class Probe(NamedTuple):
    """One module to be measured."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]  # (N, C, H, W)


def time_probes(
    probes: Mapping[Key, Probe], *, timer: Timer, backend: Backend, repeats: int, seed: int, label: str
) -> dict[Key, Timing]:
    """Measure every probe `repeats` times, spread over the rounds; call it under `measuring`.

    Every round visits the probes in an order of its own, so that a drift of the machine's speed spreads
    over all of them and does not look like a dependence on the width. Each visit builds the module anew:
    that costs about two runs of it, and no probe keeps one lucky or unlucky place in memory.
    """
    shares = split_repeats(repeats)
    samples: dict[Key, list[list[float]]] = {key: [] for key in probes}
    visits = list(_visits(list(probes), len(shares), seed))
    for number, key in track(visits, label=label, total=len(visits), unit="measurement"):
        run = backend.prepare(*build(probes[key], timer.device))
        samples[key].append(timer.samples_ms(run, shares[number]))
    return {key: Timing.of_rounds(rounds) for key, rounds in samples.items()}


def split_repeats(repeats: int) -> list[int]:
    """Repeats of each round, as even as possible; no round is empty."""
    rounds = min(ROUNDS, repeats)
    return [repeats // rounds + (number < repeats % rounds) for number in range(rounds)]


def _visits(keys: list[Key], rounds: int, seed: int) -> Iterator[tuple[int, Key]]:
    random = np.random.default_rng(seed)
    for number in range(rounds):
        for index in random.permutation(len(keys)):
            yield number, keys[index]


def build(probe: Probe, device: torch.device) -> tuple[nn.Module, torch.Tensor]:
    """The module in eval mode and an example input, both on the device."""
    return probe.build().eval().to(device), torch.randn(probe.input_shape, device=device)
