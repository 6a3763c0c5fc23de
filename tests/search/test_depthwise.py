"""Depthwise convolutions and their gradients against PyTorch's own, at every size, stride and precision."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tfnas.search.depthwise import depthwise, depthwise_backward_input, depthwise_backward_weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 3), (4, 2), (13, 4), (7, 8)], ids=str)
def test_equal_to_autograd(size, stride, kernel, dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, *size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(6, 1, kernel, kernel, dtype=dtype), torch.randn(6, dtype=dtype)
    exact = [tensor.double().requires_grad_() for tensor in (x, weight)]
    expected = functional.conv2d(*exact, bias.double(), stride, kernel // 2, groups=6)
    grad = torch.randn_like(expected).to(dtype)
    found = [depthwise(x, weight, stride, bias)]
    found += [backward(grad, x, weight, stride) for backward in (depthwise_backward_input, depthwise_backward_weight)]
    close = {"rtol": 0.05, "atol": 0.1} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    for own, other in zip(found, [expected, *torch.autograd.grad(expected, exact, grad.double())], strict=True):
        assert own.dtype == dtype
        torch.testing.assert_close(own.double(), other, **close)
