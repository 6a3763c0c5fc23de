"""BatchNorm over the batches of all processes.

torch.nn.SyncBatchNorm does it on GPUs alone; on CPUs, over gloo, `SyncBatchNorm` here.
N batch, C channels, H W size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tfnas.compute import distributed
from tfnas.space.batch_statistics import statistics_over_processes


def synchronise_batchnorm(network: nn.Module, device: torch.device) -> None:
    """Put a synchronised BatchNorm in the place of each of a network's, with the same weights; in place."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm  # same parameters, buffers and options


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics in training are those of all processes' batches together, of one size each."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        if not self.training or not distributed.is_active():
            return super().forward(input)
        centred, mean, variance = statistics_over_processes(input)
        self._update(mean.detach(), variance.detach(), count=input.numel() // input.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        """Running statistics as BatchNorm2d keeps them, the variance without bias."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        values = count * distributed.world_size()
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)
