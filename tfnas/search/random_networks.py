"""Networks drawn at random from a space and scaled to a limit: what a search has to beat.

L searchable layers, K candidate operations, N draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from tfnas.compute.seeding import derive_seed
from tfnas.jobs.errors import UserError
from tfnas.latency.params import RANDOM, baseline_kind
from tfnas.search.constraint import Constraint
from tfnas.search.derivation.strongest import Derived, derived_network, searchable_layers, stage_slices
from tfnas.search.derivation.within_budget import can_be_filled, cost_ranges, derive_within_budget, spans
from tfnas.search.scaling.elasticity_scaling import scale_widths
from tfnas.space import Space

AT_ONCE = 20_000  # draws
MOST = 1_000_000  # draws; networks that are rarer than one in so many are found in another way


def random_baseline(constraint: Constraint, target: str, network: str, seed: int) -> Derived:
    """What `random_N` or `any_N` in `baselines.networks` names: a function of the four arguments alone.

    Args:
        target, network: their names.
        seed: of params.yaml; every name has its own draw.

    Raises:
        UserError: no network of the space can be scaled to the limit.
    """
    name = f"{constraint.space.name}-{target}-{network}"
    drawn = derive_seed(seed, "baselines", target, network)
    if baseline_kind(network) == RANDOM:
        return random_network_at(constraint, name, drawn)
    return random_network(constraint.space, name, drawn)


def random_network_at(constraint: Constraint, name: str, seed: int) -> Derived:
    """One network of the limit's cost: drawn uniformly among those that can be scaled to it, and scaled to it.

    Every depth of a stage and every operation of a layer is as likely as the others; a draw counts if it costs at most
    the limit with all widths at their smallest and at least the limit with all at their largest, as in
    `derive_within_budget`. Widths are then those of elasticity-scaling (Algorithm 1), as for a searched network.
    Near the ends of the space's range such networks can be rarer than one in `MOST`. Then it is the network derived
    within the budget from random alpha and beta: random as well, but not uniformly.

    Args:
        seed: the draw depends on it, the space, the cost and the limit alone.

    Raises:
        UserError: no network of the space can be scaled to the limit.
    """
    random = np.random.default_rng(seed)
    derived = next(_fillable(constraint, name, random), None) or _derived_from_random(constraint, name, random)
    scaled = scale_widths(derived.architecture, constraint, ranges=derived.width_ranges(constraint.space))
    return replace(derived, architecture=scaled.architecture)


def random_network(space: Space, name: str, seed: int) -> Derived:
    """One network drawn uniformly over depths and operations, at its initial widths (those a search begins with)."""
    draws = _draw(space, 1, np.random.default_rng(seed))
    return _network(space, name, *(values[0] for values in draws))


def _fillable(constraint: Constraint, name: str, random: np.random.Generator) -> Iterator[Derived]:
    """Draws that can be scaled to the limit, in the order of drawing."""
    space = constraint.space
    fixed, ranges = cost_ranges(constraint)  # what every network costs; (2, L, K), lowest and highest
    for _ in range(0, MOST, AT_ONCE):
        operations, kept = _draw(space, AT_ONCE, random)
        chosen = ranges[:, np.arange(operations.shape[1]), operations]  # (2, N, L)
        low, high = fixed + (chosen * kept).sum(-1)
        for number in np.flatnonzero(spans(low, high, constraint.limit)):
            yield _network(space, name, operations[number], kept[number])


def _derived_from_random(constraint: Constraint, name: str, random: np.random.Generator) -> Derived:
    """What is derived within the budget (sink-connecting) from alpha and beta drawn from a standard normal."""
    space = constraint.space
    slices = stage_slices(space)
    alphas = torch.from_numpy(random.standard_normal((slices[-1][1], len(space.candidates))))
    betas = [torch.from_numpy(random.standard_normal(end - first)) for first, end in slices]
    derived = derive_within_budget(constraint, alphas, betas, _initial_widths(space), name)
    if not can_be_filled(derived, constraint):
        raise UserError(
            f"{name}: no network of {space.name} can be scaled to {constraint.limit:.6g} {constraint.cost.unit}, so"
            " there is none to compare with; choose a target further inside the space's range"
        )
    return derived


def _draw(space: Space, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(N, L) operations, and (N, L) booleans of the layers that the networks have."""
    slices = stage_slices(space)
    operations = random.integers(len(space.candidates), size=(count, slices[-1][1]))
    kept = np.zeros(operations.shape, dtype=bool)
    for first, end in slices:
        depths = random.integers(1, end - first + 1, size=(count, 1))
        kept[:, first:end] = np.arange(end - first) < depths
    return operations, kept


def _network(space: Space, name: str, operations: np.ndarray, kept: np.ndarray) -> Derived:
    return derived_network(space, operations.tolist(), kept.tolist(), _initial_widths(space), name)


def _initial_widths(space: Space) -> list[list[int]]:
    """(L, K), those that a search begins with."""
    return [[c.initial_width(layer.in_channels) for c in space.candidates] for layer in searchable_layers(space)]
