"""BatchNorm of the supernet: batch statistics always, nothing learnt, nothing remembered (as the authors' code).

N batch, C channels, H W size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.compute import distributed
from tfnas.space.batch_statistics import statistics_over_processes

EPSILON = 1e-5


def batch_norm(x: Tensor) -> Tensor:
    """Zero mean and unit variance in each channel, over the batch of all processes; (N, C, H, W)."""
    return _synchronised(x) if distributed.is_active() else functional.batch_norm(x, None, None, training=True)


class BatchNorm(nn.Module):
    """`batch_norm` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x)


def _synchronised(x: Tensor) -> Tensor:
    """In float32, as torch's own under autocast."""
    wide = x if x.dtype == torch.float64 else x.float()
    centred, _, variance = statistics_over_processes(wide)
    return (centred * (variance[:, None, None] + EPSILON).rsqrt()).to(x.dtype)
