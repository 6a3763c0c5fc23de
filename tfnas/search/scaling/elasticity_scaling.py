"""Elasticity-scaling: the largest widths that fit the latency target, solved exactly (Sec. 3.3, Algorithm 1).

gamma scales the widths of stages i to the last: width = clip(floor(gamma * w), low, high). LAT(gamma) is a step
function that changes only at its breakpoints gamma = n / w with n a whole number, so the largest gamma within the
target is one of them and is found by looking at them, not by a search to some precision."""

from __future__ import annotations

import numpy as np

from tfnas.search.constraint import Constraint
from tfnas.search.scaling.widths import ScalingResult, WidthProblem, WidthRanges, width_ranges
from tfnas.space import Architecture

ONE = 1 << 32  # gamma as a whole number of 2^-32, so that floor(gamma * w) is exact
ROUNDING = 1.0 + 1e-12  # sums in another order may differ by this factor; decided by the exact sum then
FEW = 64  # breakpoints worth listing one by one


def scale_widths(
    architecture: Architecture,
    constraint: Constraint,
    *,
    ranges: WidthRanges | None = None,
) -> ScalingResult:
    """Scale the widths to the largest latency within the target, from coarse to fine (Algorithm 1).

    For each searchable stage i from first to last: the largest gamma such that LAT(gamma * sn_i:last) is within
    the target. Differs from the paper in going through the stages again until nothing changes: a later round may
    leave room that an earlier, coarser one can use. From the second pass on gamma is at least 1, so widths only
    grow and this ends; scaling an outcome within the target again with the same ranges changes nothing. There, the
    blocks that a round has widened are widened further without the others: otherwise the same ones would grow in
    many passes, by one channel in each.

    Args:
        ranges: (smallest, largest) width of each block; by default inferred, see `width_ranges`.

    Returns:
        Never a latency above the target where the smallest widths are within it; otherwise those, `reached` False.

    Raises:
        UserError: the cost lacks an operation or a width.
    """
    space, limit = constraint.space, constraint.limit
    ranges = width_ranges(architecture, space) if ranges is None else ranges
    problem = WidthProblem(architecture, constraint.cost, ranges, space.width_multiple)
    stages = sorted({stage.stage for stage in space.searchable_stages} & set(problem.stages.tolist()))
    widths, before = problem.clip(problem.widths), None
    while before is None or not np.array_equal(widths, before):
        is_first, before = before is None, widths
        for stage in stages:
            scaled = largest_scaling(problem, widths, problem.stages >= stage, limit)
            if scaled is None:
                return problem.result(problem.low, limit)
            widths = scaled if is_first else _widen_further(problem, widths, scaled, limit)
    return problem.result(widths, limit)


def _widen_further(problem: WidthProblem, before: np.ndarray, after: np.ndarray, limit: float) -> np.ndarray:
    """Widen the blocks that a round within the target has widened, without the others, as far as the target allows."""
    widened = after != before
    further = largest_scaling(problem, after, widened, limit) if widened.any() else None
    return after if further is None else further


def largest_scaling(problem: WidthProblem, widths: np.ndarray, scaled: np.ndarray, limit: float) -> np.ndarray | None:
    """One round: the widths at the largest gamma within the target; None when there is no such gamma.

    Also right where the cost is not monotone in the width.

    Args:
        widths: (B,) of the seed network.
        scaled: (B,) booleans, the blocks that gamma applies to.
    """
    line = _ScalingLine(problem, widths, scaled, limit)
    start = 0
    if line.is_within(widths):
        start = ONE
        following = line.next_breakpoint()
        if following is None or line.is_surely_above(line.widths_at(following)):
            return widths
    below, above = line.bracket(start)
    while True:
        found = line.last_within(below, above)
        if found is not None or below == 0:
            return found
        below, above = max(below - 2 * (above - below), 0), below


class _ScalingLine:
    """The networks gamma * sn, for all gamma."""

    def __init__(self, problem: WidthProblem, widths: np.ndarray, scaled: np.ndarray, limit: float) -> None:
        self._problem, self._seed, self._limit = problem, widths, limit
        self._low, self._high = (np.where(scaled, limit, widths) for limit in (problem.low, problem.high))

    def widths_at(self, gamma: int) -> np.ndarray:
        return np.minimum(np.maximum((gamma * self._seed) // ONE, self._low), self._high)

    def is_within(self, widths: np.ndarray) -> bool:
        return self._problem.cost(widths) <= self._limit

    def is_surely_above(self, widths: np.ndarray) -> bool:
        """Whether every larger gamma is above the target, too."""
        return self._problem.lower_bound(widths) > self._limit * ROUNDING

    def next_breakpoint(self) -> int | None:
        """The smallest gamma above 1 that changes a width; None when all are at their largest."""
        seed = self._seed[self._seed < self._high]
        return int((-(-((seed + 1) * ONE) // seed)).min()) if len(seed) else None

    def bracket(self, below: int) -> tuple[int, int]:
        """Two gammas: the last one within the target is at most the second, and mostly between them."""
        last = int((-(-(self._high * ONE) // self._seed)).max())
        step = ONE >> 8
        above = min(below + step, last)
        while above < last and not self.is_surely_above(self.widths_at(above)):
            below, step = above, 4 * step
            above = min(below + step, last)
        return self._bisect(below, above) if self.is_surely_above(self.widths_at(above)) else (below, above)

    def _bisect(self, below: int, above: int) -> tuple[int, int]:
        few, many = self.widths_at(below), self.widths_at(above)
        while above - below > 1 and (many - few).sum() > FEW:
            middle = (below + above) // 2
            widths = self.widths_at(middle)
            if self.is_surely_above(widths):
                above, many = middle, widths
            else:
                below, few = middle, widths
        return below, above

    def last_within(self, below: int, above: int) -> np.ndarray | None:
        """The widths at the largest breakpoint in (below, above] within the target, or at `below`; else None."""
        start = self.widths_at(below)
        blocks, widths = _listed(start, self.widths_at(above))
        gammas = widths / self._seed[blocks]  # equal fractions are equal numbers: division rounds correctly
        order = np.argsort(gammas, kind="stable")
        blocks, gammas = blocks[order], gammas[order]
        costs = self._problem.cost(start) + np.cumsum(self._problem.step_costs(blocks, widths[order]))
        complete = np.ones(len(gammas), dtype=bool)  # where all widths that change at this gamma have changed
        complete[:-1] = gammas[1:] != gammas[:-1]
        for end in np.flatnonzero(complete & (costs <= self._limit * ROUNDING))[::-1]:
            found = start + np.bincount(blocks[: end + 1], minlength=len(start))
            if self.is_within(found):
                return np.asarray(found)
        return start if self.is_within(start) else None


def _listed(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(block, width) for every width above `low` and up to `high`, block by block."""
    counts = high - low
    blocks = np.repeat(np.arange(len(low)), counts)
    first = np.cumsum(counts) - counts
    return blocks, low[blocks] + 1 + np.arange(len(blocks)) - first[blocks]


def scale_widths_by_integer_ratio(
    architecture: Architecture,
    constraint: Constraint,
    *,
    ranges: WidthRanges | None = None,
) -> ScalingResult:
    """Scale the widths by steps, with the same outcome as the authors' code.

    A step changes each width by its ratio to the narrowest one, rounded to a whole number. Above the target, all
    searchable stages shrink until within it (or until no width is strictly inside its range); below it, they grow
    as long as they stay within it. Then the second to last, third to last, ... stages grow. A step after which no
    width is strictly inside its range any more is not taken when growing.

    Coarser than `scale_widths`: steps of up to one part in the narrowest width.

    Args, Returns, Raises: see there.
    """
    space, limit = constraint.space, constraint.limit
    ranges = width_ranges(architecture, space) if ranges is None else ranges
    problem = WidthProblem(architecture, constraint.cost, ranges, space.width_multiple)
    stages = sorted({stage.stage for stage in space.searchable_stages} & set(problem.stages.tolist()))
    widths, before = problem.widths, problem.cost(problem.widths)
    if before == limit:
        return problem.result(widths, limit)
    if before > limit:
        widths = _shrink(problem, widths, problem.stages >= stages[0], limit)
        stages = stages[1:]
    for stage in stages:
        widths = _grow(problem, widths, problem.stages >= stage, limit)
    return problem.result(widths, limit)


def _shrink(problem: WidthProblem, widths: np.ndarray, scaled: np.ndarray, limit: float) -> np.ndarray:
    step = _step(widths, scaled)
    movable = True
    while movable and problem.cost(widths) >= limit:
        widths = problem.clip(widths - step)
        movable = _is_movable(problem, widths, scaled)
    return widths


def _grow(problem: WidthProblem, widths: np.ndarray, scaled: np.ndarray, limit: float) -> np.ndarray:
    step = _step(widths, scaled)
    following, movable = widths, True
    while movable and problem.cost(following) <= limit:
        widths = following
        following = problem.clip(widths + step)
        movable = _is_movable(problem, following, scaled)
    return widths


def _step(widths: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Channels to change each width by; 0 outside `scaled`. Halves round to even, as in Python."""
    return np.where(scaled, np.rint(widths / widths[scaled].min()), 0).astype(np.int64)


def _is_movable(problem: WidthProblem, widths: np.ndarray, scaled: np.ndarray) -> bool:
    return bool(((problem.low < widths) & (widths < problem.high) & scaled).any())
