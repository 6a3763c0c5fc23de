"""The tensor operations that `blocks` puts together, and their gradients.

BatchNorm, 1x1 convolutions, squeeze-and-excitation (Fig. 6), projection, depthwise convolutions.

oneDNN is slow for some shapes of depthwise convolutions; the equal ways that avoid them were measured with torch 2.14.

N batch, C channels, H W size, P = N H W, K operations of a group, m expansion channels of one, M of all, s channels of
squeeze-and-excitation, k kernel: depthwise weights are (M, 1, k, k), padding is k // 2. Tensors of four axes are in
channels_last memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    centered = values - mean
    return InputStatistics(mean, centered.t() @ centered / len(values))


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


def normalized_backward(grad: Tensor, x: Tensor) -> Tensor:
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


_HALF = (torch.bfloat16, torch.float16)


def depthwise(x: Tensor, weight: Tensor, stride: int, bias: Tensor | None = None) -> Tensor:
    """Depthwise convolution, (N, M, H, W) to (N, M, H', W')."""
    weight = _within(weight, x)
    if _scales(weight, x, stride):
        out = x * weight.view(1, -1, 1, 1)
        return out if bias is None else out.add_(bias.view(1, -1, 1, 1))
    return functional.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2, groups=len(weight))


def depthwise_backward_input(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Gradient of the input x, of which only the shape is used.

    On a CPU oneDNN has no fast 16-bit form with stride 2 (it takes 10 times as long as in float32, and more).
    """
    weight, dtype = _within(weight, x), grad.dtype
    if _scales(weight, x, stride):
        return grad * weight.view(1, -1, 1, 1)
    if stride > 1 and dtype in _HALF and not grad.is_cuda:
        grad, weight = grad.float(), weight.float()
        x = torch.empty_like(x, dtype=torch.float32)
    return _backward(grad, x, weight, stride, [True, False, False])[0].to(dtype)


def depthwise_backward_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Gradient of the weight, (M, 1, k, k).

    On a CPU oneDNN is fast with kernels of 3 on more than a few pixels.
    """
    if not grad.is_cuda and x.shape[2] * x.shape[3] <= 4:
        return _weight_by_taps(grad, x, weight, stride)
    if not grad.is_cuda and weight.shape[-1] == 5:
        return _weight_by_corners(grad, x, weight, stride)
    return _backward(grad, x, weight, stride, [False, True, False])[1]


def _within(weight: Tensor, x: Tensor) -> Tensor:
    """The taps that can meet a pixel: the others only ever see padding. A single pixel meets the middle one alone."""
    size = min(weight.shape[-1], 2 * max(x.shape[2:]) - 1)
    margin = (weight.shape[-1] - size) // 2
    return weight if margin == 0 else weight[..., margin : margin + size, margin : margin + size].contiguous()


def _scales(weight: Tensor, x: Tensor, stride: int) -> bool:
    """Whether the convolution is one factor for each channel: a single tap, and no pixel that the stride leaves out."""
    return weight.shape[-1] == 1 and (stride == 1 or max(x.shape[2:]) == 1)


def _weight_by_taps(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """One product of gradient and input for each tap."""
    out = torch.zeros_like(weight)
    kernel = weight.shape[-1]
    for i, h, y in _taps(kernel, x.shape[2], grad.shape[2], stride):
        for j, w, z in _taps(kernel, x.shape[3], grad.shape[3], stride):
            out[:, 0, i, j] = (grad[:, :, h, w] * x[:, :, y, z]).sum((0, 2, 3))
    return out


def _taps(kernel: int, pixels: int, outputs: int, stride: int) -> Iterator[tuple[int, slice, slice]]:
    """Along one axis: each tap that meets a pixel, the outputs that it is part of, and the pixels that it meets."""
    for tap in range(kernel):
        offset = tap - kernel // 2
        met = [at for at in range(outputs) if 0 <= stride * at + offset < pixels]
        if met:
            first, last = met[0], met[-1]
            yield tap, slice(first, last + 1), slice(stride * first + offset, stride * last + offset + 1, stride)


def _weight_by_corners(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A kernel of 5 from four of 3, its corners.

    With one more pixel around x, output u of a kernel of 3 begins at x[stride u - 2]. So the first three taps of a row
    see x at the output's own place, and the last three see it 2 / stride places later.
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
            parts.append(_backward(moved, x, corner, stride, [False, True, False])[1])
        taps.append(torch.cat([parts[0], parts[1][..., 1:]], -1))
    return torch.cat([taps[0], taps[1][..., 1:, :]], -2)


def _backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, mask: list[bool]) -> tuple[Tensor, ...]:
    padding = weight.shape[-1] // 2
    out: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), mask
    )
    return out
