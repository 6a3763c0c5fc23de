"""BatchNorm of the supernet: batch statistics always, nothing learnt, nothing remembered (as the authors' code).

N batch, C channels, H W size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.runtime import distributed

EPSILON = 1e-5


def batch_norm(x: Tensor) -> Tensor:
    """Zero mean and unit variance in each channel, over the batch of all processes; (N, C, H, W)."""
    return _synchronised(x) if distributed.is_active() else functional.batch_norm(x, None, None, training=True)


class BatchNorm(nn.Module):
    """`batch_norm` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x)


def _synchronised(x: Tensor) -> Tensor:
    """By sums over all processes, which have batches of one size; in float32, as torch's own under autocast."""
    wide = x if x.dtype == torch.float64 else x.float()
    mean = _Mean.apply(wide.mean((0, 2, 3)))[None, :, None, None]
    centred = wide - mean
    variance = _Mean.apply(centred.square().mean((0, 2, 3)))[None, :, None, None]
    return (centred * (variance + EPSILON).rsqrt()).to(x.dtype)


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
        return distributed.mean(gradient)
