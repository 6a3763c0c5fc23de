"""Tensor operations of MBInvRes blocks and their gradients, as `block_function` puts them together.

N batch, C channels, H W size, P = N H W, M expansion channels. Tensors of four axes are in channels_last memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

EPS = 1e-5  # of every BatchNorm

_aten = torch.ops.aten


class Activation(NamedTuple):
    """A function, the same in place, and its backward: (gradient, input) to the gradient, written over the first."""

    forward: Callable[[Tensor], Tensor]
    inplace: Callable[[Tensor], Tensor]
    backward_inplace: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        torch.relu,
        torch.relu_,
        lambda grad, x: _aten.threshold_backward.grad_input(grad, x, 0, grad_input=grad),
    ),
    "relu6": Activation(
        functional.relu6,
        lambda x: functional.hardtanh_(x, 0.0, 6.0),
        lambda grad, x: _aten.hardtanh_backward.grad_input(grad, x, 0.0, 6.0, grad_input=grad),
    ),
    "swish": Activation(
        functional.silu,
        lambda x: functional.silu(x, inplace=True),
        lambda grad, x: _aten.silu_backward.grad_input(grad, x, grad_input=grad),
    ),
}


def rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (P, C), without a copy from channels_last memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def maps(x: Tensor, like: Tensor) -> Tensor:
    """(P, C) as (N, C, H, W), N, H and W being those of another; never copies."""
    batch, _, height, width = like.shape
    return x.view(batch, height, width, -1).permute(0, 3, 1, 2)


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Means and variances of 16-bit values are kept in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class InputStatistics(NamedTuple):
    """Mean (C,) and covariance (C, C) of a layer's input over a batch."""

    mean: Tensor
    covariance: Tensor


def input_statistics(x: Tensor) -> InputStatistics:
    """What BatchNorm needs of every 1x1 convolution of x: a linear map w of x has variance w Cov(x) w^T."""
    values = rows(x).to(statistics_dtype(x.dtype))
    mean = values.mean(0)
    centred = values - mean
    return InputStatistics(mean, centred.t() @ centred / len(values))


@functools.lru_cache(maxsize=64)
def _filled(value: float, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((size,), value, dtype=dtype, device=device)


def constant(value: float, like: Tensor) -> Tensor:
    """(C,) of one value for the channels of x, in the precision of statistics; it is shared, never write to it."""
    channels = like.shape[1]
    size = 1 << (channels - 1).bit_length()
    return _filled(value, size, statistics_dtype(like.dtype), like.device)[:channels]


def batch_norm(x: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """BatchNorm with batch statistics; the output, the means (C,) and 1 / standard deviation (C,)."""
    if scale is None and x.dtype != statistics_dtype(x.dtype):
        scale = constant(1.0, x)
    shift = None if scale is None else constant(0.0, x)
    out: tuple[Tensor, Tensor, Tensor] = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, EPS)
    return out


def batch_norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, inverse_std: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of input and scale (if there is one); x is what went into `batch_norm`."""
    mask = [True, scale is not None, False]
    if scale is None and x.dtype != mean.dtype:
        scale = constant(1.0, x)
    out: tuple[Tensor, Tensor, Tensor] = _aten.native_batch_norm_backward(
        grad, x, scale, None, None, mean, inverse_std, True, EPS, mask
    )
    return out[0], out[1]


def normalised_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of BatchNorm's input, times its standard deviation, from its output x."""
    return batch_norm_backward(grad, x, constant(0.0, x), constant(1.0, x), None)[0]


def channel_sums(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of grad x and of grad over all but the channels, (C,) each, in one pass: a part of BatchNorm's backward."""
    zero, one = constant(0.0, x), constant(1.0, x)
    scale = one if x.dtype != one.dtype else None
    _, dot, total = _aten.native_batch_norm_backward(
        grad, x, scale, None, None, zero, one, True, EPS, [False, True, True]
    )
    return dot, total


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution; of single pixels, a matrix product, which costs less."""
    if x.shape[2] * x.shape[3] > 1:
        return functional.conv2d(x, weight, bias)
    return maps(functional.linear(rows(x), weight.flatten(1), bias), like=x)


def pointwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, *, needs_weight: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of input, weight and bias of a 1x1 convolution."""
    if x.shape[2] * x.shape[3] > 1:
        mask = [True, needs_weight, needs_weight]
        out: tuple[Tensor, Tensor | None, Tensor | None] = _aten.convolution_backward(
            grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask
        )
        return out
    values = rows(grad)
    direct = maps(values @ weight.flatten(1), like=x)
    return (direct, (values.t() @ rows(x)).view_as(weight), values.sum(0)) if needs_weight else (direct, None, None)
