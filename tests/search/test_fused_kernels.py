"""Depthwise convolutions and their gradients against PyTorch's own, at every size, stride and precision."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tfnas.search.fused.kernels import depthwise, depthwise_backward_input, depthwise_backward_weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 3), (4, 2), (13, 4), (7, 8)], ids=str)
def test_equal_to_autograd(size, stride, kernel, dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, *size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(6, 1, kernel, kernel, dtype=dtype), torch.randn(6, dtype=dtype)
    inputs, grad = (x, weight, bias), torch.randn_like(depthwise(x, weight, stride, bias))
    found = [depthwise(x, weight, stride, bias)]
    found += [backward(grad, x, weight, stride) for backward in (depthwise_backward_input, depthwise_backward_weight)]
    exact = by_autograd(*(tensor.double() for tensor in (*inputs, grad)), stride=stride)
    # sums of absolute values: what the rounding errors of a sum are in proportion to, in whatever order it is taken
    magnitudes = by_autograd(*(tensor.double().abs() for tensor in (*inputs, grad)), stride=stride)
    for own, other, magnitude in zip(found, exact, magnitudes, strict=True):
        assert own.dtype == dtype
        assert ((own.double() - other).abs() <= 4 * torch.finfo(dtype).eps * magnitude).all()


def by_autograd(x, weight, bias, grad, *, stride) -> list[torch.Tensor]:
    """Output, gradient of x, gradient of the weight."""
    leaves = [tensor.requires_grad_() for tensor in (x, weight)]
    out = functional.conv2d(*leaves, bias, stride, weight.shape[-1] // 2, groups=len(weight))
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]
