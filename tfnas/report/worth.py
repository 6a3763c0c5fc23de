"""Is the search worth it? The found network against random and known ones of the same latency, trained alike.

Accuracies are top-1 in percent. A network has one accuracy per seed of its training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tfnas.latency.params import KNOWN, RANDOM
from tfnas.report.inputs import OverSeeds, TargetResult

CONFIDENCE = 0.95
UNEQUAL = (
    " The found network began with trained weights (retrain.initial) and the others from scratch, so the margin is not"
    " of the search alone."
)


class Compared(NamedTuple):
    """A target's network, and those of its latency that were trained alike."""

    found: Trained
    random: list[Trained]
    known: list[Trained]
    target_ms: float | None = None  # None where latencies are measured on another device than the target's
    is_ahead: bool = False  # whether the found network alone began with trained weights (retrain.initial)

    @property
    def text(self) -> str:
        """The verdict in words."""
        text = worth_text(self.found, self.random, self.known, self.target_ms)
        return text + (UNEQUAL if self.is_ahead else "")

    def numbers(self) -> dict[str, float]:
        """The comparison with random networks; empty with fewer than two."""
        margin = margin_over_random(self.found, self.random)
        if margin is None:
            return {}
        above, count = standing(self.found, self.random)
        return {
            "baselines_random": count,
            "baselines_random_below": above,
            "baselines_random_top1_mean_percent": statistics.fmean(network.mean for network in self.random),
            "baselines_margin_points": margin.points,
            "baselines_margin_low_points": margin.low,
            "baselines_margin_high_points": margin.high,
        }


def compared_networks(target: TargetResult) -> Compared:
    """Latencies as measured end to end; networks of any size are left out."""
    found = Trained(target.name, "found", target.derived["measured_latency_ms"], target.top1)
    random = [Trained(b.name, "random", b.measured_ms, b.top1) for b in target.baselines if b.kind == RANDOM]
    known = [Trained(b.name, "known", b.measured_ms, b.top1) for b in target.baselines if b.kind == KNOWN]
    target_ms = target.derived.get("target_ms") if target.measured_on_the_tables_device else None
    return Compared(found, random, known, target_ms, is_ahead="initial_top1_percent" in target.retrain.metrics)


@dataclass(frozen=True)
class Trained(OverSeeds):
    """A network after training, once per seed."""

    name: str
    kind: Literal["found", "random", "known"]
    latency_ms: float
    top1: tuple[float, ...]


class Margin(NamedTuple):
    """How far the found network is above others, with a 95 % interval, in points of top-1."""

    points: float
    low: float
    high: float
    standard_error: float

    @property
    def verdict(self) -> Literal["better", "no difference", "worse"]:
        """What the interval says."""
        if self.low > 0.0:
            return "better"
        return "worse" if self.high < 0.0 else "no difference"


def margin_over_random(found: Trained, random: Sequence[Trained]) -> Margin | None:
    """The found network's mean less the mean of random networks, with its 95 % interval; None with fewer than two.

    The random networks are a sample of the space, so what is estimated is the gain over drawing one. Its variance has
    two parts (Welch's test): s^2 / K, with s the deviation of the K networks' means, which holds the differences
    between networks and what is left of the seeds' noise; and v / n, the noise in the found network's mean over n
    seeds. v is the variance over seeds, pooled over all networks that have two seeds or more. Where none has, nothing
    tells noise from differences, and v is s^2, the most that the noise can be: the interval is that of one more draw,
    t with K - 1 degrees of freedom.
    """
    means = [network.mean for network in random]
    if len(means) < 2:
        return None
    spread, count = statistics.variance(means), len(means)
    noise = pooled_variance([found, *random])
    between = spread / count
    if noise is None:
        within, degrees = spread / len(found.top1), float(count - 1)
    else:
        within = noise.variance / len(found.top1)
        degrees = _welch(between, count - 1, within, noise.degrees)
    return _margin(found.mean - statistics.fmean(means), between + within, degrees)


def margin_over_known(found: Trained, known: Trained) -> Margin | None:
    """The found network's mean less that of one known network over seeds (Welch); None with one seed of both."""
    noise = pooled_variance([found, known])
    if noise is None:
        return None
    variance = noise.variance * (1 / len(found.top1) + 1 / len(known.top1))
    return _margin(found.mean - known.mean, variance, float(noise.degrees))


class Noise(NamedTuple):
    """The variance over seeds."""

    variance: float
    degrees: int  # of freedom


def pooled_variance(networks: Sequence[Trained]) -> Noise | None:
    """Over seeds, pooled over networks; None where no network has two seeds."""
    several = [network.top1 for network in networks if len(network.top1) > 1]
    degrees = sum(len(top1) - 1 for top1 in several)
    if degrees == 0:
        return None
    return Noise(sum(statistics.variance(top1) * (len(top1) - 1) for top1 in several) / degrees, degrees)


def _welch(first: float, first_degrees: int, second: float, second_degrees: int) -> float:
    """Degrees of freedom of a sum of two estimated variances (Welch and Satterthwaite)."""
    total = first + second
    if total == 0.0:
        return float(first_degrees)
    return total**2 / (first**2 / first_degrees + second**2 / second_degrees)


def _margin(points: float, variance: float, degrees: float) -> Margin:
    from scipy.stats import t

    error = math.sqrt(variance)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, degrees)) * error
    return Margin(points, points - half, points + half, error)


def standing(found: Trained, random: Sequence[Trained]) -> tuple[int, int]:
    """Of how many random networks the found one is above, by means; and of how many in all. Ties count as not above."""
    return sum(found.mean > network.mean for network in random), len(random)


def worth_text(
    found: Trained, random: Sequence[Trained], known: Sequence[Trained], target_ms: float | None = None
) -> str:
    """The verdict in words, with the numbers that it follows from.

    Args:
        known: one that is slower than the target even at its narrowest is named only where none is within it.
        target_ms: None where latencies are measured on another device than the target's.
    """
    margin = margin_over_random(found, random)
    if margin is None:
        trained = "1 random network of this latency was" if random else "no random network of this latency was"
        return f"Not known: {trained} trained, and it takes two or more. Add some to baselines.networks."
    above, count = standing(found, random)
    seeds = _seeds([found, *random])
    verdict = {
        "better": "Better than random networks of the same latency",
        "worse": "Worse than random networks of the same latency",
        "no difference": f"No difference from random networks of the same latency shown with n = {count}",
    }[margin.verdict]
    numbers = (
        f"{margin.points:+.2f} points over the mean of {count} (95 % interval {margin.low:+.2f} to {margin.high:+.2f};"
        f" {seeds}), above {above} of {count}"
    )
    return f"{verdict}: {numbers}. {_known_text(found, known, target_ms)}".rstrip()


def _known_text(found: Trained, known: Sequence[Trained], target_ms: float | None) -> str:
    if not known:
        return ""
    within = [network for network in known if target_ms is None or network.latency_ms <= target_ms]
    best = max(within or known, key=lambda network: network.mean)
    margin = margin_over_known(found, best)
    between = "" if margin is None else f" (95 % interval {margin.low:+.2f} to {margin.high:+.2f})"
    points = f"{found.mean - best.mean:+.2f} points over"
    if within:
        return f"{points} the best known network, {best.name}{between}."
    return (
        f"No known network is as fast as the target; {points} the best of the slower ones, {best.name} at"
        f" {best.latency_ms:.3g} ms{between}."
    )


def _seeds(networks: Sequence[Trained]) -> str:
    counts = sorted({len(network.top1) for network in networks})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} seed{'' if counts == [1] else 's'} per network"
