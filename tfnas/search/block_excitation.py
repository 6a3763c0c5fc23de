"""Squeeze-and-excitation of a group of operations (Fig. 6), forward and backward.

N batch, m expansion channels of one operation, M of all of the group, s channels of squeeze-and-excitation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tfnas.search.block_kernels import Activation

Weights = Mapping[str, Tensor]


class Excited(NamedTuple):
    """What the backward pass of one operation needs."""

    pooled: Tensor  # (N, m)
    reduced: Tensor  # (N, s) before the activation
    factors: Tensor  # (N, m)


def excite_inplace(
    x: Tensor, operations: Sequence[Weights], parts: Sequence[slice], act: Activation
) -> list[Excited | None]:
    """Multiply x (N, M, H, W) by the factors of those operations that have squeeze-and-excitation."""
    if not any("se_reduce" in weights for weights in operations):
        return [None] * len(operations)
    pooled_all, excited = x.mean((2, 3)), list[Excited | None]()
    for weights, part in zip(operations, parts, strict=True):
        if "se_reduce" not in weights:
            excited.append(None)
            continue
        first, second = _matrices(weights, x.dtype)
        pooled = pooled_all[:, part]
        reduced = torch.addmm(weights["se_reduce_bias"].to(x.dtype), pooled, first.t())
        factors = torch.addmm(weights["se_expand_bias"].to(x.dtype), act.forward(reduced), second.t()).sigmoid_()
        x[:, part].mul_(factors.view(*factors.shape, 1, 1))
        excited.append(Excited(pooled, reduced, factors))
    return excited


def excite_backward_inplace(grad: Tensor, x: Tensor, weights: Weights, kept: Excited, act: Activation) -> Weights:
    """Turn the gradient (N, m, H, W) of one operation's product into that of x; returns the weights' gradients."""
    first, second = _matrices(weights, x.dtype)
    inner = torch.ops.aten.sigmoid_backward((grad * x).sum((2, 3)), kept.factors)
    outer = act.backward_inplace(inner @ second, kept.reduced)
    pooled = torch.addmm(kept.pooled, outer, first, beta=0, alpha=1 / (x.shape[2] * x.shape[3]))
    shape = (*pooled.shape, 1, 1)
    torch.addcmul(pooled.view(shape).expand_as(grad), grad, kept.factors.view(shape), out=grad)
    if not weights["se_reduce"].requires_grad:
        return {}
    return {
        "se_reduce": (outer.t() @ kept.pooled).view(weights["se_reduce"].shape),
        "se_reduce_bias": outer.sum(0),
        "se_expand": (inner.t() @ act.forward(kept.reduced)).view(weights["se_expand"].shape),
        "se_expand_bias": inner.sum(0),
    }


def _matrices(weights: Weights, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(s, m) and (m, s)."""
    return weights["se_reduce"].flatten(1).to(dtype), weights["se_expand"].flatten(1).to(dtype)
