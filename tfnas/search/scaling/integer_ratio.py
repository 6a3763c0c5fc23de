"""Elasticity-scaling as the authors' code does it: steps of whole channels in fixed proportions."""

from __future__ import annotations

import numpy as np

from tfnas.search.constraint import Constraint
from tfnas.search.scaling.widths import ScalingResult, WidthProblem, WidthRanges, width_ranges
from tfnas.space import Architecture


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

    Coarser than `elasticity_scaling.scale_widths`: steps of up to one part in the narrowest width.

    Args, Returns, Raises: see there.
    """
    space, limit = constraint.space, constraint.limit
    ranges = width_ranges(architecture, space) if ranges is None else ranges
    problem = WidthProblem(architecture, constraint.cost, ranges)
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
