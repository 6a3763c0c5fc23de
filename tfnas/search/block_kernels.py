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


def pointwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, *, needs_weight: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of input, weight and bias of a 1x1 convolution."""
    mask = [True, needs_weight, needs_weight]
    out: tuple[Tensor, Tensor | None, Tensor | None] = _aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask
    )
    return out


def depthwise(x: Tensor, weight: Tensor, stride: int, bias: Tensor | None = None) -> Tensor:
    """Depthwise convolution, weight (M, 1, k, k)."""
    return functional.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2, groups=len(weight))


def depthwise_backward_input(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Gradient of a depthwise convolution's input, of which only the shape is used.

    oneDNN has no fast 16-bit form with stride 2 on a CPU (it takes 10 to 100 times as long), so it computes in float32.
    """
    dtype = grad.dtype
    if stride > 1 and dtype in (torch.bfloat16, torch.float16) and not grad.is_cuda:
        grad, weight = grad.float(), weight.float()
        x = torch.empty_like(x, dtype=torch.float32)
    return _depthwise_backward(grad, x, weight, stride, [True, False, False])[0].to(dtype)


def depthwise_backward_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Gradient of a depthwise convolution's weight, (M, 1, k, k).

    oneDNN has a fast form for kernels up to 3 on a CPU, so one of 5 is put together from four of 3.
    """
    if weight.shape[-1] == 5 and not grad.is_cuda and x.shape[-1] > 2:
        return _depthwise_backward_weight_5(grad, x, weight, stride)
    return _depthwise_backward(grad, x, weight, stride, [False, True, False])[1]


def _depthwise_backward_weight_5(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The corners of a kernel of 5: with one more pixel around x, output u of a kernel of 3 begins at x[stride u - 2].

    So the first three taps of a row see x at the output's own place, the last three see it 2 / stride places later.
    """
    later = 2 // stride
    height, width = ((n + 1) // stride + 1 for n in x.shape[2:])  # of the output of a kernel of 3 over x + 1 pixel
    x, corner = functional.pad(x, (1, 1, 1, 1)), weight[..., :3, :3].contiguous()
    taps = []
    for top in (0, later):
        parts = []
        for left in (0, later):
            bottom, right = height - top - grad.shape[2], width - left - grad.shape[3]
            moved = functional.pad(grad, (left, right, top, bottom))
            parts.append(_depthwise_backward(moved, x, corner, stride, [False, True, False])[1])
        taps.append(torch.cat([parts[0], parts[1][..., 1:]], -1))
    return torch.cat([taps[0], taps[1][..., 1:, :]], -2)


def _depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, mask: list[bool]) -> tuple[Tensor, ...]:
    padding = weight.shape[-1] // 2
    out: tuple[Tensor, ...] = _aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), mask
    )
    return out
