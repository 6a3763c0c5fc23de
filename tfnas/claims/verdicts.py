"""From numbers per seed to *holds*, *not shown* or *contradicts*: one-sided t-tests over seeds, alpha 0.05."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "not shown", "contradicts"]
ALPHA = 0.05
MIN_SEEDS = 3  # with two, one degree of freedom is left, and a difference of chance can look certain


@dataclass(frozen=True)
class Tested:
    """Differences, one per seed, in the direction in which the paper claims them, and whether their mean is above 0.

    Attributes:
        p_holds: of the one-sided t-test against a mean of 0 or less; None with fewer than `MIN_SEEDS` seeds.
    """

    differences: tuple[float, ...]
    p_holds: float | None

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.differences) if self.differences else None

    @property
    def p_contradicts(self) -> float | None:
        """Of the same test in the other direction."""
        return None if self.p_holds is None else 1.0 - self.p_holds

    @property
    def half_width(self) -> float | None:
        """Of the 95 % interval of the mean; also what the mean must exceed for a two-sided test to see it."""
        if len(self.differences) < 2:
            return None
        from scipy.stats import t

        error = statistics.stdev(self.differences) / math.sqrt(len(self.differences))
        return float(t.ppf(0.975, len(self.differences) - 1)) * error

    @property
    def verdict(self) -> Verdict:
        return decide(self.p_holds, self.p_contradicts)


def t_test(differences: Sequence[float]) -> Tested:
    """The one-sided t-test of paired differences: t = mean / (s / sqrt(n)), n - 1 degrees of freedom.

    Differences that are all alike leave no doubt of their sign; differences that are all 0 say nothing.
    """
    values = tuple(differences)
    if len(values) < MIN_SEEDS:
        return Tested(values, None)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    if deviation == 0.0:
        return Tested(values, 0.5 if mean == 0.0 else float(mean < 0.0))
    from scipy.stats import t

    return Tested(values, float(t.sf(mean / (deviation / math.sqrt(len(values))), len(values) - 1)))


def decide(p_holds: float | None, p_contradicts: float | None, alpha: float = ALPHA) -> Verdict:
    """What one test says."""
    if p_holds is not None and p_holds < alpha:
        return "holds"
    return "contradicts" if p_contradicts is not None and p_contradicts < alpha else "not shown"


def decide_all(tested: Sequence[Tested]) -> Verdict:
    """What the tests of a claim's statements say together.

    The claim holds where each statement does (the intersection-union test, whose level needs no correction), and is
    contradicted where one statement is at alpha divided by their number (Bonferroni).
    """
    if tested and all(one.verdict == "holds" for one in tested):
        return "holds"
    against = [one.p_contradicts for one in tested if one.p_contradicts is not None]
    return "contradicts" if any(p < ALPHA / len(tested) for p in against) else "not shown"
