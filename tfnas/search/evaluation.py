"""Whether the supernet learns: accuracies of the derived network and of random ones, with the supernet's weights.

L searchable layers, K candidate operations.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tfnas.data.images.loader import Batch
from tfnas.search.derivation.strongest import Derived, derive
from tfnas.search.result import SearchResult
from tfnas.search.state import SearchState, Setting
from tfnas.search.steps import Stepper
from tfnas.search.supernet.supernet import Supernet


class Evaluation(NamedTuple):
    """Top-1 in percent; None where no random network was drawn."""

    derived_top1: float
    random_top1_mean: float | None = None
    random_top1_std: float | None = None  # standard deviation over the random networks, which all see the same images


def evaluate(stepper: Stepper, batches: Iterable[Batch], derived: Derived, others: Sequence[Derived]) -> Evaluation:
    """Top-1 of the derived network and of others on the same images.

    In several processes each has its part of every batch; the counts are sums over all of them.
    """
    top1, *rest = _top1_percent(stepper, batches, [derived, *others])
    return Evaluation(top1, statistics.fmean(rest), statistics.pstdev(rest)) if rest else Evaluation(top1)


def top1_at_own_widths(searched: SearchResult, network: Derived, batches: Iterable[Batch], setting: Setting) -> float:
    """Top-1 in percent of a network with a searched supernet's weights, evaluated as after an epoch of the search.

    Its operations first get its widths as the search gives a scaled network its own (Algorithm 1, line 6): they keep
    the most important channels. Each network is evaluated in the supernet as the search left it, so its accuracy does
    not depend on which others are.
    """
    state = SearchState(searched.build_supernet().to(setting.device), setting)
    state.apply_widths(network, network.architecture)
    (top1,) = _top1_percent(Stepper(state, setting, None), batches, [network])
    return top1


def _top1_percent(stepper: Stepper, batches: Iterable[Batch], networks: Sequence[Derived]) -> list[float]:
    """Of each network, over all images of the batches."""
    correct, images = torch.zeros(len(networks), dtype=torch.long), 0
    for batch in batches:
        correct += stepper.count_correct_derived(batch, networks)
        images += stepper.batch_size(batch)
    return [100.0 * count / images for count in correct.tolist()]


def random_networks(supernet: Supernet, count: int, generator: torch.Generator) -> list[Derived]:
    """Networks drawn uniformly from the space, at the supernet's current widths.

    What is derived (Eq. 10, 11) from alpha and beta that are independent and alike: in each layer every operation, and
    in each stage every depth, is as likely as the others; where layers are skipped one by one, so is each skip.
    """
    return [_random_network(supernet, generator) for _ in range(count)]


def _random_network(supernet: Supernet, generator: torch.Generator) -> Derived:
    alphas, *betas = (_uniform(values, generator) for values in supernet.architecture_parameters())
    return derive(supernet.space, alphas, betas, supernet.widths(), "random", supernet.depth_space)


def _uniform(values: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers of the shape of `values`, on the CPU so that every device draws the same networks."""
    return torch.rand(values.shape, generator=generator)
