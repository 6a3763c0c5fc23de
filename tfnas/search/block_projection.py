"""Squeeze-and-excitation (Fig. 6) and projection of a group of operations, forward and backward.

K operations of the group, m expansion channels of one, M of all, s channels of squeeze-and-excitation; N batch,
C channels, H W size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tfnas.search.block_kernels import Activation, maps, pointwise, pointwise_backward, rows

Weights = Mapping[str, Tensor]
Gradients = list[dict[str, Tensor]]  # of each operation's weights


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


def project(x: Tensor, operations: Sequence[Weights], parts: Sequence[slice]) -> Tensor:
    """(N, M, H, W) to (N, K C_out, H, W): each operation projects its own channels."""
    kernels = [weights["project"].to(x.dtype) for weights in operations]  # (C_out, m, 1, 1) each
    if len(kernels) == 1:
        return pointwise(x, kernels[0])
    values, channels = rows(x), len(kernels[0])
    out = values.new_empty(len(values), len(kernels) * channels)
    for part, own, kernel in zip(parts, out.chunk(len(kernels), 1), kernels, strict=True):
        torch.mm(values[:, part], kernel.flatten(1).t(), out=own)
    return maps(out, like=x)


def project_backward(
    grad: Tensor,
    x: Tensor,
    operations: Sequence[Weights],
    parts: Sequence[slice],
    excited: Sequence[Excited | None],
    act: Activation,
    *,
    needs_weights: bool,
) -> tuple[Tensor, Gradients]:
    """Gradients before squeeze-and-excitation, where x (N, M, H, W) was, and of the weights (empty unless needed).

    Args:
        grad: (N, K C_out, H, W).
        x: before squeeze-and-excitation; only its shape counts where nothing needs its values.
    """
    alone, gradients = len(operations) == 1, list[dict[str, Tensor]]()
    out, grads = None if alone else torch.empty_like(x), grad.chunk(len(operations), 1)
    for weights, part, own, kept in zip(operations, parts, grads, excited, strict=True):
        before, after = (x, x) if alone else (x[:, part], x[:, part])
        if kept is not None and needs_weights:
            after = before * kept.factors.view(*kept.factors.shape, 1, 1)
        kernel, raw = weights["project"].to(grad.dtype), None
        if out is None:
            inner, raw, _ = pointwise_backward(grad, after, kernel, needs_weight=needs_weights)
        else:
            inner = out[:, part]
            torch.mm(rows(own), kernel.flatten(1), out=rows(out)[:, part])
            if needs_weights:
                raw = (rows(own).t() @ rows(after)).view_as(kernel)
        gradients.append({} if raw is None else {"project": raw})
        if kept is not None:
            gradients[-1] |= _excite_backward_inplace(inner, before, weights, kept, act)
    return inner if out is None else out, gradients


def _excite_backward_inplace(grad: Tensor, x: Tensor, weights: Weights, kept: Excited, act: Activation) -> Weights:
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
