"""Does the supernet rank? Top-1 of random networks in the searched supernet, against that of training each alone.

And what that is to be judged by: how well multiply-adds alone rank them, and one seed of the training itself.

Accuracies are top-1 in percent. n networks.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tfnas.latency.params import ANY, RANDOM
from tfnas.report.inputs import OverSeeds, TargetResult

USEFUL = 0.8  # a Spearman correlation from which on a supernet is worth choosing by
NORMAL_95 = 1.959964  # two-sided 95 % quantile of the standard normal


@dataclass(frozen=True)
class Ranked(OverSeeds):
    """A random network in the supernet, and trained alone, once per seed."""

    name: str
    kind: str  # random: of the target's latency; any: of any size
    macs: float
    supernet_top1: float
    top1: tuple[float, ...]


class Agreement(NamedTuple):
    """Rank correlations over networks; equal accuracies share a rank (Kendall's tau-b)."""

    spearman: float
    kendall: float
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        """Of Spearman's correlation, 95 %: Fisher's z with the standard error of Bonett and Wright (2000).

        z = atanh(r) has about the variance (1 + r^2 / 2) / (n - 3). The order of n networks is discrete, so r is taken
        to be half a step from 1 at most, that is 1 - 6 / (n^3 - n).
        """
        if self.count <= 3:
            return -1.0, 1.0
        most = 1.0 - 6.0 / (self.count**3 - self.count)
        r = min(max(self.spearman, -most), most)
        half = NORMAL_95 * math.sqrt((1.0 + r**2 / 2.0) / (self.count - 3))
        return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        low, high = self.interval
        if low > 0.0:
            return "the supernet’s order agrees with that of training" + (", but weakly" if high < USEFUL else "")
        if high < 0.0:
            return "the supernet’s order is the reverse of that of training"
        if high >= USEFUL:
            return f"n = {self.count} is too small to tell whether the supernet ranks"
        return "the supernet’s order says little about that of training"


class Ranking(NamedTuple):
    """The random networks of a target, by both accuracies."""

    networks: list[Ranked]

    @property
    def equal_latency(self) -> list[Ranked]:
        """Those of the target's latency."""
        return [network for network in self.networks if network.kind == RANDOM]

    @property
    def all_sizes(self) -> list[Ranked]:
        """All, where some are of any size; else none."""
        return self.networks if any(network.kind == ANY for network in self.networks) else []

    def numbers(self) -> dict[str, float]:
        """Both correlations and n, at equal latency and over all sizes; without those that are not defined."""
        found: dict[str, float] = {}
        for prefix, networks in (("ranking_equal_latency", self.equal_latency), ("ranking_all_sizes", self.all_sizes)):
            agreement = _agreement(networks)
            if agreement is not None:
                found |= {
                    f"{prefix}_networks": agreement.count,
                    f"{prefix}_spearman": agreement.spearman,
                    f"{prefix}_kendall": agreement.kendall,
                }
                others = {"macs": _agreement_of_macs(networks), "seeds": agreement_of_seeds([n.top1 for n in networks])}
                found |= {f"{prefix}_{name}_spearman": value for name, value in others.items() if value is not None}
        return found

    @property
    def text(self) -> str:
        """Whether the supernet ranks, in words, with the numbers that it follows from."""
        if not self.networks:
            return "Not known: no random network was trained."
        parts = [_told("At equal latency", self.equal_latency)] if self.equal_latency else []
        if self.all_sizes:
            parts.append(_told("Over all sizes", self.all_sizes))
        return " ".join(parts)


def ranking(target: TargetResult) -> Ranking:
    """Of a target's baselines those that are in its supernet; known networks are not."""
    return Ranking(
        [
            Ranked(b.name, b.kind, b.macs, b.supernet_top1, b.top1)
            for b in target.baselines
            if b.supernet_top1 is not None
        ]
    )


def rank_agreement(supernet: Sequence[float], alone: Sequence[float]) -> Agreement | None:
    """Whether the supernet orders networks as training them does; None with fewer than three, or all alike.

    Args:
        supernet: top-1 of each network with the supernet's weights.
        alone: top-1 of the same networks, each trained from scratch.
    """
    from scipy.stats import kendalltau, spearmanr

    assert len(supernet) == len(alone)
    if len(alone) < 3 or len(set(supernet)) == 1 or len(set(alone)) == 1:
        return None
    return Agreement(
        float(spearmanr(supernet, alone).statistic), float(kendalltau(supernet, alone).statistic), len(alone)
    )


def agreement_of_seeds(top1: Sequence[Sequence[float]]) -> float | None:
    """How well training networks once more ranks them: Spearman of one seed with the mean of the others.

    What a supernet's correlation is to be judged by: where networks differ no more than seeds do, no measure ranks
    them. The mean over the seeds, n networks, s seeds each; None with one seed, or too few or all alike.

    Args:
        top1: (n, s), of each network trained from scratch with each seed.
    """
    seeds = min(map(len, top1), default=0)
    if seeds < 2:
        return None
    found = []
    for seed in range(seeds):
        others = [statistics.fmean(own[other] for other in range(seeds) if other != seed) for own in top1]
        agreement = rank_agreement([own[seed] for own in top1], others)
        if agreement is None:
            return None
        found.append(agreement.spearman)
    return statistics.fmean(found)


def _agreement(networks: Sequence[Ranked]) -> Agreement | None:
    return rank_agreement([network.supernet_top1 for network in networks], [network.mean for network in networks])


def _agreement_of_macs(networks: Sequence[Ranked]) -> float | None:
    agreement = rank_agreement([network.macs for network in networks], [network.mean for network in networks])
    return None if agreement is None else agreement.spearman


def _told(where: str, networks: Sequence[Ranked]) -> str:
    agreement, count = _agreement(networks), len(networks)
    if agreement is None:
        why = "the accuracies are all the same" if count >= 3 else "n is too small to tell"
        return f"{where} (n = {count}): {why}."
    low, high = agreement.interval
    again = agreement_of_seeds([network.top1 for network in networks])
    macs = _agreement_of_macs(networks)
    others = "" if macs is None else f" Multiply-adds alone: {macs:.2f}."
    if again is not None:
        few = ", so these networks differ by little more than seeds do" if again < USEFUL else ""
        others += f" Training with one seed agrees with the other seeds to {again:.2f}{few}."
    return (
        f"{where} (n = {count}): Spearman {agreement.spearman:.2f} (95 % interval {low:.2f} to {high:.2f}), Kendall"
        f" {agreement.kendall:.2f}; {agreement.verdict}.{others}"
    )
