"""MBInvRes blocks of one layer as a single differentiable function: what their weighted sum is, computed with less.

The plain form (convolution, BatchNorm, activation; Appendix A, Eq. 3) is in tests/search/plain_mixed_op.py, and the
results are equal up to rounding. What differs:

- The expansion's BatchNorm is part of its convolution: with x of mean m and covariance C, W x has variances
  diag(W C W^T), so the normalised output is a convolution of x with scaled weights and a bias. All candidates share m
  and C. The backward pass needs no normalisation either, only sums.
- The normalised expansion and depthwise output are all that is kept for the backward pass; activations are computed
  again. With `recompute` not even these: two convolutions give them back, since their statistics are kept.
- u_k is the scale of the projection's BatchNorm, so that its gradient comes with that of the input.
- Operations of one kernel size can be computed together, along the channels ("fused"): fewer, larger tensor operations.

N batch, C channels, H W size, P = N H W, K operations, M expansion channels of the operations of a group, together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tfnas.search.block_group import Group, InputGradient, Kept
from tfnas.search.block_kernels import InputStatistics, input_statistics, maps, rows
from tfnas.search.block_projection import Excited

# Covariances pay when C^2 is at most so many P; otherwise, normalising the expansion by itself costs less (measured).
PIXELS_PER_COVARIANCE = 1


class Layout(NamedTuple):
    """How a layer's operations are computed."""

    stride: int
    act: str
    residual: bool
    groups: tuple[tuple[int, ...], ...]  # of operations that are computed together, each of one kernel size
    names: tuple[tuple[str, ...], ...]  # of each operation's weights
    dtype: torch.dtype  # to compute in
    recompute: bool  # keep no activations for the backward pass


def blocks(x: Tensor, operations: Sequence[Mapping[str, Tensor]], weights: Tensor | None, **layout: Any) -> Tensor:
    """Weighted sum of a layer's operations, (N, C_in, H, W) to (N, C_out, H', W').

    Differentiable, once, with respect to x, the operations' weights and u.

    Args:
        operations: active weights of each, by name.
        weights: u of Eq. 3, (K,); None: there is one operation, and its weight is 1.
        layout: stride, act, residual, groups, recompute (`Layout`).
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    names = tuple(tuple(operation) for operation in operations)
    tensors = [tensor for operation in operations for tensor in operation.values()]
    with torch.autocast(kind, enabled=False):
        out: Tensor = _Blocks.apply(Layout(names=names, dtype=dtype, **layout), x, weights, *tensors)
    return out


class _Blocks(torch.autograd.Function):
    """`blocks`."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, x: Tensor, weights: Tensor | None, *tensors: Tensor) -> Tensor:
        x = x.to(layout.dtype).contiguous(memory_format=torch.channels_last)
        statistics = input_statistics(x) if x.shape[1] ** 2 <= PIXELS_PER_COVARIANCE * len(rows(x)) else None
        channels = tensors[layout.names[0].index("project")].shape[0]
        u = None if weights is None else weights.unbind()
        out, kept = None, list[Tensor | None]()
        ctx.excited = []
        for members, group in zip(layout.groups, _groups(layout, tensors), strict=True):
            scale = None if u is None else torch.stack([u[i] for i in members]).repeat_interleave(channels)
            part, own, excited = group.forward(x, statistics, scale, recompute=layout.recompute)
            if len(members) > 1:
                part = maps(rows(part).view(-1, len(members), channels).sum(1), like=part)
            out = part if out is None else out.add_(part)
            kept += own
            ctx.excited.append([one is not None for one in excited])
            kept += (tensor for one in excited if one is not None for tensor in one)
        assert out is not None
        if layout.residual:
            out = out.add_(x) if weights is None else out.addcmul_(x, weights.sum().to(x.dtype))
        ctx.layout = layout
        ctx.save_for_backward(x, weights, *(statistics or (None, None)), *tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            return _backward(ctx, grad.contiguous(memory_format=torch.channels_last))


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    layout, saved = ctx.layout, iter(ctx.saved_tensors)
    x, weights, mean, covariance = (next(saved) for _ in range(4))
    statistics = None if mean is None else InputStatistics(mean, covariance)
    tensors = [next(saved) for names in layout.names for _ in names]
    needs_weights, u_grad, found = any(ctx.needs_input_grad[3:]), dict[int, Tensor](), dict[int, dict[str, Tensor]]()
    total = None
    for members, group, has in zip(layout.groups, _groups(layout, tensors), ctx.excited, strict=True):
        kept = Kept(*itertools.islice(saved, len(Kept._fields)))
        excited = [Excited(*itertools.islice(saved, len(Excited._fields))) if one else None for one in has]
        own = grad if len(members) == 1 else maps(rows(grad).repeat(1, len(members)), like=grad)
        inner, scale_grad, gradients = group.backward(own, x, kept, excited, statistics, needs_weights=needs_weights)
        total = inner if total is None else _added(total, inner)
        found |= dict(zip(members, gradients, strict=True))
        if weights is not None:
            u_grad |= dict(zip(members, scale_grad.view(len(members), -1).sum(1).unbind(), strict=True))
    assert total is not None
    x_grad, matrix, constant = total
    if matrix is not None and constant is not None:
        matrix, constant = matrix.div_(-len(rows(x))), constant.div_(-len(rows(x)))
        bias = constant.addmv_(matrix, mean, alpha=-1).to(x.dtype)
        x_grad.add_(functional.conv2d(x, matrix.to(x.dtype).view(*matrix.shape, 1, 1), bias))
    weights_grad = torch.stack([u_grad[i] for i in range(len(u_grad))]) if u_grad else None
    if layout.residual and weights is None:
        x_grad.add_(grad)
    elif layout.residual:
        x_grad.addcmul_(grad, weights.sum().to(grad.dtype))
        weights_grad += (grad * x).sum(dtype=weights.dtype)
    flat = [found[i].get(name) for i, names in enumerate(layout.names) for name in names]
    return None, x_grad, weights_grad, *flat


def _added(total: InputGradient, inner: InputGradient) -> InputGradient:
    return InputGradient(*(None if a is None else a.add_(b) for a, b in zip(total, inner, strict=True)))  # type: ignore[arg-type]


def _groups(layout: Layout, tensors: Sequence[Tensor]) -> Iterator[Group]:
    left = iter(tensors)
    operations = [{name: next(left) for name in names} for names in layout.names]
    for members in layout.groups:
        yield Group([operations[i] for i in members], layout.stride, layout.act, layout.dtype)
