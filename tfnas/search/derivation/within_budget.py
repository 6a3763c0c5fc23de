"""Derivation within the budget: the most probable network whose widths can use the limit up.

The strongest network (Eq. 10, 11) may cost less than the limit at its largest widths, and Eq. 9 never pushes it up; or
more than the limit at its smallest. Here operations and depths are chosen together, such that the network costs at most
the limit with all widths at their smallest, and at least the limit with all at their largest. The gamma of
elasticity-scaling (Algorithm 1) passes the limit on the way from the one to the other, so it can fill such a network.
What the widths in between cost does not count: a cost may fall where the width grows, and gamma need not find such a
dip.

It is a multiple-choice knapsack, as in HardCoRe-NAS (Nayman et al., ICML 2021), with two constraints.

L searchable layers, K candidate operations.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tfnas.latency import OperationKey
from tfnas.search.constraint import Constraint
from tfnas.search.derivation.knapsack import NOT_KEPT, ROUNDING, SAME, Knapsack, Segment
from tfnas.search.derivation.strongest import Derived, derive, derived_network, searchable_layers, stage_slices
from tfnas.search.supernet.depth_spaces import DEPTH_SPACES, candidate_mask, operation_logits
from tfnas.space import Space
from tfnas.space.membership import fixed_blocks

SHARES = tuple(percent / 100.0 for percent in range(100, -1, -1))  # of the limit that a network must be able to use

logger = logging.getLogger("tfnas.search")


def derive_by(
    within: str,
    constraint: Constraint | None,
    space: Space,
    alphas: Tensor,
    betas: Sequence[Tensor],
    widths: Sequence[Sequence[int]],
    name: str,
    depth_space: str,
) -> Derived:
    """The network at the current widths, as `derive.within` says.

    Args:
        within: `strongest` (`derive`) or `budget` (`derive_within_budget`); without a constraint, as in a warm-up, the
            strongest as well.
        space, alphas, betas, widths, name, depth_space: as in `derive`.

    Raises:
        UserError: the cost lacks an operation or a width.
    """
    if within == "budget" and constraint is not None:
        return derive_within_budget(constraint, alphas, betas, widths, name, depth_space)
    return derive(space, alphas, betas, widths, name, depth_space)


def derive_within_budget(
    constraint: Constraint,
    alphas: Tensor,
    betas: Sequence[Tensor],
    widths: Sequence[Sequence[int]],
    name: str,
    depth_space: str = "sink",
) -> Derived:
    """The most probable network (Eq. 10, 11) that can be scaled to the limit, at its current widths.

    The probability is the product of Eq. 10 over all layers and of Eq. 11 over all stages, where a layer that is not
    kept counts with its strongest operation. So the strongest network is the most probable of all, and is derived
    wherever it can be scaled to the limit. (A product over the layers kept alone would favor shallow networks, which
    have fewer factors, whatever beta says.) Where no network can be scaled to the limit, the most probable one is
    derived that is within the limit at its smallest widths and can be scaled to as many whole percents of it as any
    can; where the limit is below all networks, the strongest.

    The outcome depends on alpha, beta, cost and limit, not on the current widths: after the derived network has been
    scaled, the same one is derived again. Its log-probability is at most `SAME` below that of the most probable one;
    a larger distance, which can occur where the largest of `knapsack.BEAMS` proves nothing, is logged.

    Args:
        alphas, betas, widths, name, depth_space: as in `derive`.

    Raises:
        UserError: the cost lacks an operation or a width.
    """
    space = constraint.space
    strongest = derive(space, alphas, betas, widths, name, depth_space)
    if can_be_filled(strongest, constraint):
        return strongest
    knapsack = _knapsack(constraint, alphas, betas, depth_space)
    unused = (constraint.limit * (1.0 - share) for share in SHARES)
    tries = (replace(knapsack, least=knapsack.most - part).solve() for part in unused)
    found = next((solution for solution in tries if solution is not None), None)
    if found is None:
        return strongest
    if found.gap > SAME:
        logger.info("%s: the most probable network may be more probable by a factor of %.4g", name, np.exp(found.gap))
    chosen = zip(found.choices, strongest.operations, strict=True)
    operations = [own if choice == NOT_KEPT else choice for choice, own in chosen]
    kept = [0 <= choice < len(space.candidates) for choice in found.choices]
    return derived_network(space, operations, kept, widths, name)


def can_be_filled(derived: Derived, constraint: Constraint) -> bool:
    """Whether a network costs at most the limit at its smallest widths, and at least the limit at its largest."""
    cost, limit = constraint.cost, constraint.limit
    ranges, low, high = derived.width_ranges(constraint.space), cost.base, cost.base
    for (size, block), widths in zip(derived.architecture.block_resolutions(cost.resolution), ranges, strict=True):
        if block.stage not in cost.fixed_stages:
            at_smallest, at_largest = (cost.operation(OperationKey.of_block(size, block), width) for width in widths)
            low, high = low + at_smallest, high + at_largest
    return bool(spans(low, high, limit))


def spans(low: Any, high: Any, limit: float) -> Any:
    """Whether costs at the smallest widths are at most the limit, and at the largest at least; numbers or arrays."""
    return (low <= limit * (1.0 + ROUNDING)) & (high >= limit * (1.0 - ROUNDING))


def cost_ranges(constraint: Constraint) -> tuple[float, np.ndarray]:
    """What every network of the space costs before any searched layer, and what each operation costs.

    Returns:
        The fixed part; (2, L, K), each operation at its smallest and at its largest width.

    Raises:
        UserError: the cost lacks an operation or a width.
    """
    fixed = constraint.cost.base + _fixed_cost(constraint)
    return fixed, np.stack(_costs(constraint, choices=len(constraint.space.candidates)))


def _knapsack(constraint: Constraint, alphas: Tensor, betas: Sequence[Tensor], depth_space: str) -> Knapsack:
    """Log-probabilities relative to the strongest network, and costs; the room is what the searched layers may cost."""
    logits = operation_logits(alphas.detach(), candidate_mask(constraint.space, depth_space)).cpu().double()
    scores, segments = [], list[Segment]()
    for beta, (first, end) in zip(betas, stage_slices(constraint.space), strict=True):
        for choices, depths in DEPTH_SPACES[depth_space].log_probabilities(
            logits[first:end], beta.detach().cpu().double()
        ):
            start = segments[-1].end if segments else 0
            scores.append(choices - choices.amax(-1, keepdim=True))
            segments.append(Segment(start, start + len(depths), (depths - depths.max()).numpy()))
    score = torch.cat(scores).numpy()
    low, high = _costs(constraint, choices=score.shape[1])
    room = constraint.limit - constraint.cost.base - _fixed_cost(constraint)
    return Knapsack(score, low, high, segments, most=room, least=room)


def _costs(constraint: Constraint, choices: int) -> tuple[np.ndarray, np.ndarray]:
    """What each choice costs at its smallest and at its largest width, (L, choices); skip costs nothing."""
    space, cost = constraint.space, constraint.cost
    layers = searchable_layers(space, cost.resolution)
    costs = np.zeros((2, len(layers), choices))
    for i, layer in enumerate(layers):
        if layer.stage not in cost.fixed_stages:
            for k, candidate in enumerate(space.candidates):
                key = OperationKey.of_candidate(layer, candidate)
                costs[:, i, k] = [cost.operation(key, width) for width in candidate.width_range(layer.in_channels)]
    return costs[0], costs[1]


def _fixed_cost(constraint: Constraint) -> float:
    """What blocks cost that are not searched, and not in the cost's base: the same in every network."""
    cost, searched = constraint.cost, {stage.stage for stage in constraint.space.searchable_stages}
    layers = [layer for layer in constraint.space.layers(cost.resolution) if layer.stage not in searched]
    return sum(
        cost.operation(OperationKey.of_block(layer.resolution, block), block.expand_channels)
        for layer, block in zip(layers, fixed_blocks(constraint.space), strict=True)
        if block.stage not in cost.fixed_stages
    )
