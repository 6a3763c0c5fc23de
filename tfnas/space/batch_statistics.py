"""Mean and variance of a batch that several processes share, for BatchNorm.

N batch of one process, C channels, H W size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tfnas.compute import distributed


def statistics_over_processes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C, H, W) to x less its mean, the mean (C,) and the biased variance (C,), over all processes' batches.

    The batches have one size. The mean comes first and the variance about it second, so that no digits cancel out.
    """
    mean: Tensor = _Mean.apply(x.mean((0, 2, 3)))
    centred = x - mean[:, None, None]
    variance: Tensor = _Mean.apply(centred.square().mean((0, 2, 3)))
    return centred, mean, variance


class _Mean(torch.autograd.Function):
    """The mean over all processes, as part of the graph of each.

    Each process has the gradient of its own loss, and the gradients of all are averaged afterwards: so that of the
    mean is passed on as the mean of what arrives in each.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return distributed.mean(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return distributed.mean(gradient.contiguous())
