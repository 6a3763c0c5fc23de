"""Which operations a step works with: Gumbel-softmax (Eq. 3) and bi-sampling's second path (Sec. 3.3, Table 3).

L searchable layers, K candidate operations. A path is one operation per layer, (L,) indices. An operation that a layer
does not have has alpha -inf (skip among the candidates: `depth_spaces`); no path takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SecondPath = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]
_TINY = torch.finfo(torch.float32).tiny


def gumbel_noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Independent samples of Gumbel(0, 1), on the CPU so that every device takes the same paths."""
    uniform = torch.rand(shape, generator=generator).clamp_min(_TINY)
    return -(-uniform.log()).clamp_min(_TINY).log()


def gumbel_softmax(alphas: Tensor, temperature: float, noise: Tensor) -> Tensor:
    """The soft weights u of the operations, Eq. 3: softmax((log_softmax(alpha) + g) / tau); (L, K), rows sum to 1.

    The paper writes alpha where the authors' code has its log-softmax; the two give the same u.
    """
    return ((alphas.log_softmax(-1) + noise.to(alphas.device)) / temperature).softmax(-1)


def gumbel_path(alphas: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """The first path: in each layer the operation with the largest u of Eq. 3.

    It takes operation i with probability softmax(alpha)_i, whatever the temperature.
    """
    alphas = alphas.detach().cpu()
    return gumbel_softmax(alphas, temperature, gumbel_noise(alphas.shape, generator)).argmax(-1)


def second_path(kind: str, alphas: Tensor, first: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Bi-sampling's second path: in each layer one of the K - 1 operations that the first path did not take.

    Args:
        kind: a key of `SECOND_PATHS`, the rows of Table 3.
        first: (L,) operations of the first path.
    """
    remaining = alphas.detach().cpu().log_softmax(-1).scatter(-1, first[:, None], -torch.inf)
    return SECOND_PATHS[kind](remaining, first, temperature, generator)


# `remaining` is (L, K) log-probabilities with -inf at the first path's operation.


def _random(remaining: Tensor, first: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Uniform: step on by a random number of operations, around the layer's own (which come first)."""
    others = (~remaining.isneginf()).sum(-1)
    period = math.lcm(*set(others.tolist()))  # a multiple of each, so that every remainder is as likely
    step = 1 + torch.randint(period, others.shape, generator=generator) % others
    return (first + step) % (others + 1)


def _gumbel(remaining: Tensor, first: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    return gumbel_path(remaining, temperature, generator)


def _max_alpha(remaining: Tensor, first: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    return remaining.argmax(-1)


def _min_alpha(remaining: Tensor, first: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    return remaining.masked_fill(remaining.isneginf(), torch.inf).argmin(-1)


SECOND_PATHS: dict[str, SecondPath] = {
    "random": _random,
    "gumbel": _gumbel,
    "min_alpha": _min_alpha,
    "max_alpha": _max_alpha,
}
