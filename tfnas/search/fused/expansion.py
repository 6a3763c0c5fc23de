"""The expansion with its BatchNorm, from the statistics of its input; `tfnas.search.fused` has the formulas.

N batch, C channels of the input, H W size, P = N H W, M expansion channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.search.fused.kernels import (
    EPS,
    InputStatistics,
    batch_norm,
    channel_sums,
    input_statistics,
    normalized_backward,
    pointwise,
    pointwise_backward,
    rows,
)

# Covariances pay when C^2 is at most so many P; otherwise, normalising the expansion by itself costs less (measured).
PIXELS_PER_COVARIANCE = 1


class InputGradient(NamedTuple):
    """Gradient of the layer's input x, which is `direct` - (`matrix` (x - mean of x) + `constant`) / P."""

    direct: Tensor  # (N, C, H, W)
    matrix: Tensor | None  # (C, C); None: nothing more than `direct`
    constant: Tensor | None  # (C,)


def worthwhile_statistics(x: Tensor) -> InputStatistics | None:
    """Mean and covariance of a layer's input, where they cost less than BatchNorm of the expansion."""
    return input_statistics(x) if x.shape[1] ** 2 <= PIXELS_PER_COVARIANCE * len(rows(x)) else None


def expansion(x: Tensor, weight: Tensor, statistics: InputStatistics | None) -> tuple[Tensor, Tensor, Tensor]:
    """Normalized expansion (N, M, H, W) by a weight (M, C), its means (M,) and 1 / standard deviations (M,).

    Without statistics of x, it is normalized by itself.
    """
    if statistics is None:
        return batch_norm(pointwise(x, _kernel(weight, x.dtype)))
    variance = ((weight @ statistics.covariance) * weight).sum(1)
    mean, scale = weight @ statistics.mean, variance.clamp_min_(0.0).add_(EPS).rsqrt_()
    return normalized_expansion(x, weight, mean, scale), mean, scale


def normalized_expansion(x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The same by known means and scales: one convolution."""
    kernel = _kernel(weight * scale.view(-1, 1), x.dtype)
    return pointwise(x, kernel, (mean * scale).neg_().to(x.dtype))


def expansion_backward(
    grad: Tensor,
    x: Tensor,
    expanded: Tensor,
    weight: Tensor,
    scale: Tensor,
    statistics: InputStatistics | None,
    *,
    needs_weight: bool,
) -> tuple[InputGradient, Tensor | None]:
    """Gradients of input and weight (M, C), None unless needed, from that of the normalized expansion."""
    scale = scale.view(-1, 1)
    weight = weight * scale
    if statistics is None:
        grad = normalized_backward(grad, expanded)
    direct, raw, total = pointwise_backward(grad, x, _kernel(weight, x.dtype), needs_weight=needs_weight)
    weight_grad = None if raw is None else raw.flatten(1).to(weight.dtype)
    matrix = constant = None
    if statistics is not None:
        if weight_grad is None or total is None:
            dot, total = channel_sums(grad, expanded)
        else:
            total = total.to(weight.dtype)
            weight_grad = weight_grad.addr_(total, statistics.mean, alpha=-1)
            dot = (weight_grad * weight).sum(1)
            weight_grad -= (weight @ statistics.covariance).mul_(dot.view(-1, 1))
        matrix, constant = weight.t() @ (weight * dot.view(-1, 1)), total @ weight
    weight_grad = None if weight_grad is None else weight_grad.mul_(scale)
    return InputGradient(direct, matrix, constant), weight_grad


def input_gradient(parts: InputGradient, x: Tensor, statistics: InputStatistics | None) -> Tensor:
    """The gradient (N, C, H, W) that the parts stand for; writes over them."""
    grad, matrix, constant = parts
    if statistics is None or matrix is None or constant is None:
        return grad
    matrix, constant = matrix.div_(-len(rows(x))), constant.div_(-len(rows(x)))
    bias = constant.addmv_(matrix, statistics.mean, alpha=-1).to(x.dtype)
    return grad.add_(functional.conv2d(x, matrix.to(x.dtype).view(*matrix.shape, 1, 1), bias))


def _kernel(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.view(*weight.shape, 1, 1).to(dtype)
