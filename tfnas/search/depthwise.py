"""Depthwise convolutions and their gradients, by the fastest of several equal ways on a CPU.

N batch, M channels, H W size, k kernel; weights are (M, 1, k, k) and padding is k // 2. oneDNN is slow in some shapes;
the ways round them were measured with torch 2.14 and are exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

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
