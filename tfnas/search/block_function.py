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

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tfnas.search.block_group import Group, Kept
from tfnas.search.block_kernels import InputStatistics, input_statistics, maps, rows

# Covariances pay when C^2 is at most so many P: below, normalising the expansion by itself costs less (measured).
PIXELS_PER_COVARIANCE = 30


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
        out, kept = None, []
        channels = tensors[layout.names[0].index("project")].shape[0]
        for group, scale, members in _groups(layout, weights, tensors, channels):
            part, own = group.forward(x, statistics, scale, recompute=layout.recompute)
            if len(members) > 1:
                part = maps(rows(part).view(-1, len(members), channels).sum(1), like=part)
            out = part if out is None else out.add_(part)
            kept.append(own)
        assert out is not None
        if layout.residual:
            out = out.add_(x) if weights is None else out.addcmul_(x, weights.sum().to(x.dtype))
        ctx.layout, ctx.shapes = layout, [len(own.excitation) for own in kept]
        flat = [tensor for own in kept for tensor in (*own[:-1], *own.excitation)]
        ctx.save_for_backward(x, weights, *(statistics or (None, None)), *tensors, *flat)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            return _backward(ctx, grad)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    layout, saved = ctx.layout, iter(ctx.saved_tensors)
    x, weights, mean, covariance = (next(saved) for _ in range(4))
    statistics = None if mean is None else InputStatistics(mean, covariance)
    tensors = [next(saved) for names in layout.names for _ in names]
    needs_weights = any(ctx.needs_input_grad[3:])
    grad = grad.contiguous(memory_format=torch.channels_last)
    direct, matrix, constant = None, None, None
    weights_grad = None if weights is None else torch.zeros_like(weights)
    found: dict[int, dict[str, Tensor]] = {}
    channels = grad.shape[1]
    for (group, scale, members), size in zip(_groups(layout, weights, tensors, channels), ctx.shapes, strict=True):
        kept = Kept(*(next(saved) for _ in range(len(Kept._fields) - 1)), [next(saved) for _ in range(size)])
        own = grad if len(members) == 1 else maps(rows(grad).repeat(1, len(members)), like=grad)
        inner, scale_grad, gradients = group.backward(own, x, kept, statistics, scale, needs_weights=needs_weights)
        direct = inner.direct if direct is None else direct.add_(inner.direct)
        if inner.matrix is not None and inner.constant is not None:
            matrix = inner.matrix if matrix is None else matrix.add_(inner.matrix)
            constant = inner.constant if constant is None else constant.add_(inner.constant)
        if scale_grad is not None and weights_grad is not None:
            for i, value in zip(members, scale_grad.view(len(members), channels).sum(1).unbind(), strict=True):
                weights_grad[i] = value
        found |= dict(zip(members, gradients, strict=True))
    if matrix is not None:
        bias = matrix @ mean - constant
        direct.add_(functional.conv2d(x, -matrix.to(x.dtype)[:, :, None, None], bias.to(x.dtype)))
    if layout.residual:
        if weights is None:
            direct.add_(grad)
        else:
            direct.addcmul_(grad, weights.sum().to(grad.dtype))
            weights_grad += (grad * x).sum(dtype=weights.dtype)
    flat = [found[i].get(name) for i, names in enumerate(layout.names) for name in names]
    return None, direct, weights_grad, *flat


def _groups(
    layout: Layout, weights: Tensor | None, tensors: Sequence[Tensor], channels: int
) -> Iterator[tuple[Group, Tensor | None, tuple[int, ...]]]:
    """Each group, the scale of its last BatchNorm (K C_out,), and the operations in it."""
    left = iter(tensors)
    operations = [{name: next(left) for name in names} for names in layout.names]
    single = None if weights is None else weights.unbind()
    for members in layout.groups:
        scale = None
        if single is not None:
            scale = torch.stack([single[i] for i in members]).repeat_interleave(channels)
        yield Group([operations[i] for i in members], layout.stride, layout.act, layout.dtype), scale, members
