"""A multiple-choice knapsack with two costs: one choice per layer, the number of layers chosen by segment.

Maximize the score where the sum of `low` is at most one number, and the sum of `high` at least another. Solved layer by
layer: partial solutions are extended by all choices of the next layer, and those are dropped whose bound, by Lagrange
multipliers, is not above the best solution found. Of the others, a beam keeps those with the largest bounds; the
largest bound that it drops says how far from the best its solution can be.

L layers, C choices of a layer, N partial solutions, R prices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BEAMS = (64, 1024, 16384)  # partial solutions to keep: each is tried where the one before proves nothing
SAME = 1e-9  # a difference in score that does not matter
ROUNDING = 1e-12  # relative: sums in another order may differ by this
FACTORS = (
    1.0,
    0.0,
    0.5,
    0.8,
    1.25,
    2.0,
)  # of the best prices; others give some partial solutions sharper bounds
HALVINGS = 30
NOT_KEPT = -1  # in place of a choice: the layer is beyond the depth


class Segment(NamedTuple):
    """Consecutive layers, of which the first 1, 2, ... or all are kept."""

    first: int
    end: int
    depth_score: np.ndarray  # (end - first,), of keeping so many


class Solution(NamedTuple):
    """The best choices found."""

    choices: list[int]  # (L,)
    gap: float  # the best there is has a score larger by this at most


class _Partial(NamedTuple):
    """N solutions up to some layer."""

    score: np.ndarray  # (N,)
    low: np.ndarray  # (N,)
    high: np.ndarray  # (N,)
    choices: np.ndarray  # (N, L)

    def take(self, chosen: np.ndarray) -> _Partial:
        return _Partial(self.score[chosen], self.low[chosen], self.high[chosen], self.choices[chosen])


@dataclass(frozen=True)
class Knapsack:
    """Choices with a score and two costs.

    Attributes:
        score: (L, C); -inf where a layer does not have the choice.
        low, high: (L, C).
        segments: of all layers, in order.
        most: of the sum of `low` over the layers kept.
        least: of the sum of `high` over the layers kept.
    """

    score: np.ndarray
    low: np.ndarray
    high: np.ndarray
    segments: Sequence[Segment]
    most: float
    least: float

    def solve(self) -> Solution | None:
        """The choices with the largest score, or with one as close to it as `Solution.gap` says.

        None when none was found: there is none, or (where many choices all but meet the constraints) a beam of the
        largest of `BEAMS` has missed it.
        """
        if not self._is_possible():
            return None
        of_low, of_high = self._best_prices()
        prices = np.array([(factor * of_low, factor * of_high) for factor in FACTORS])
        best, choices, dropped = -np.inf, None, np.inf
        for beam in BEAMS:
            ended, dropped = self._search(_Bounds(self, prices), above=best + SAME, beam=beam)
            if len(ended.score):
                at = int(ended.score.argmax())
                best, choices = float(ended.score[at]), ended.choices[at]
            if dropped <= best + SAME:
                break
        return None if choices is None else Solution(choices.tolist(), max(0.0, dropped - best))

    def _is_possible(self) -> bool:
        """Whether each of the two constraints can be met alone."""
        _, is_possible = _Bounds(self, np.zeros((1, 2))).of(self._start(), 0)
        return bool(is_possible.all())

    def _start(self) -> _Partial:
        """The one partial solution without layers."""
        return _Partial(np.zeros(1), np.zeros(1), np.zeros(1), np.full((1, len(self.score)), NOT_KEPT, dtype=np.int16))

    def _search(self, bounds: _Bounds, *, above: float, beam: int) -> tuple[_Partial, float]:
        """Solutions with a score above a value, and the largest bound of those that the beam dropped."""
        dropped = -np.inf

        def keep_best(partial: _Partial, place: int, depth: int | None = None) -> _Partial:
            nonlocal dropped
            bound, is_possible = bounds.of(partial, place, depth)
            possible = np.flatnonzero((bound > above) & is_possible)
            order = possible[np.argsort(-bound[possible], kind="stable")]
            if len(order) > beam:
                dropped = max(dropped, float(bound[order[beam]]))
            return partial.take(order[:beam])

        partial = self._start()
        for place, segment in enumerate(self.segments):
            ended = []
            for depth, depth_score in enumerate(segment.depth_score, start=1):
                partial = self._extend(partial, segment.first + depth - 1)
                ended.append(partial._replace(score=partial.score + depth_score))
                partial = keep_best(partial, place, depth)
            partial = keep_best(_Partial(*map(np.concatenate, zip(*ended, strict=True))), place + 1)
        return partial, dropped

    def _extend(self, partial: _Partial, layer: int) -> _Partial:
        """Every partial solution with every choice that a layer has."""
        own = np.flatnonzero(~np.isneginf(self.score[layer]))
        before = np.repeat(np.arange(len(partial.score)), len(own))
        extended, own = partial.take(before), np.tile(own, len(partial.score))
        extended.choices[:, layer] = own
        return _Partial(
            extended.score + self.score[layer, own],
            extended.low + self.low[layer, own],
            extended.high + self.high[layer, own],
            extended.choices,
        )

    def _best_prices(self) -> tuple[float, float]:
        """The multipliers of the two constraints with the smallest bound, or nearly: each in turn, the other fixed."""
        of_low = of_high = 0.0
        for _ in range(3):
            before = of_low, of_high
            of_low = _smallest(functools.partial(self._is_within, of_high=of_high))
            of_high = _smallest(functools.partial(self._is_filled, of_low))
            if np.allclose((of_low, of_high), before, rtol=1e-6, atol=0.0):
                break
        return of_low, of_high

    def _is_within(self, of_low: float, of_high: float) -> bool:
        return self._priced(of_low, of_high)[0] <= self.most

    def _is_filled(self, of_low: float, of_high: float) -> bool:
        return self._priced(of_low, of_high)[1] >= self.least

    def _priced(self, of_low: float, of_high: float) -> tuple[float, float]:
        """Sums of `low` and `high` of the best choices where both have a price instead of a constraint."""
        values = self.score - of_low * self.low + of_high * self.high
        at, layers = values.argmax(-1), np.arange(len(values))
        best = values[layers, at]
        depths = [int((best[a:b].cumsum() + depth_score).argmax()) for a, b, depth_score in self.segments]
        kept = [i for (a, _, _), depth in zip(self.segments, depths, strict=True) for i in range(a, a + depth + 1)]
        return float(self.low[kept, at[kept]].sum()), float(self.high[kept, at[kept]].sum())


class _Bounds:
    """What partial solutions can still become.

    A row w, lambda, mu stands for w score + lambda (most - low) + mu (high - least), whose largest value over all
    completions is that of the partial solution plus one number for the layers to come. With w = 1 and prices lambda,
    mu >= 0 it is at least the score of every completion within the constraints; with w = 0 and one price of 1 it is
    how well a completion can meet one constraint.
    """

    def __init__(self, knapsack: Knapsack, prices: np.ndarray) -> None:
        conditions = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
        self._rows = np.array([*((1.0, *pair) for pair in prices), *conditions])
        self._count, self._most, self._least = len(prices), knapsack.most, knapsack.least
        self._after, self._within = [np.zeros(len(self._rows))], list[list[np.ndarray]]()
        for segment in reversed(knapsack.segments):
            self._add(knapsack, segment)
        self._after, self._within = self._after[::-1], self._within[::-1]

    def _add(self, knapsack: Knapsack, segment: Segment) -> None:
        """One more segment in front."""
        w, lam, mu = self._rows.T[..., None]
        own = slice(segment.first, segment.end)
        missing = np.isneginf(knapsack.score[own])
        score = np.where(missing, 0.0, knapsack.score[own])
        values = w[..., None] * score - lam[..., None] * knapsack.low[own] + mu[..., None] * knapsack.high[own]
        best = np.where(missing, -np.inf, values).max(-1)  # (R, layers)
        further, within = np.full(len(self._rows), -np.inf), []
        for layer in reversed(range(best.shape[1])):
            within.append(further + self._after[-1])
            further = best[:, layer] + np.maximum(further, self._rows[:, 0] * segment.depth_score[layer])
        self._within.append(within[::-1])
        self._after.append(further + self._after[-1])

    def of(self, partial: _Partial, place: int, depth: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Of N partial solutions: at least the score of every completion, and whether one can meet each constraint.

        Args:
            place: segments that the partial solutions have.
            depth: layers that they have of the next one, where at least one more of it is to come.
        """
        rest = self._after[place] if depth is None else self._within[place][depth - 1]
        w, lam, mu = self._rows.T[..., None]
        own = w * partial.score + lam * (self._most - partial.low) + mu * (partial.high - self._least)
        values, slack = own + rest[:, None], ROUNDING * (abs(self._most) + abs(self._least))
        return values[: self._count].min(0), values[self._count :].min(0) >= -slack


def _smallest(is_met: Callable[[float], bool]) -> float:
    """The smallest price at which a constraint is met, from above; 0 where it costs nothing."""
    if is_met(0.0):
        return 0.0
    above = 1.0
    while not is_met(above) and above < 1e12:
        above *= 4.0
    below = 0.0
    for _ in range(HALVINGS):
        middle = (below + above) / 2.0
        below, above = (below, middle) if is_met(middle) else (middle, above)
    return above
