"""The mean over processes within autograd's graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tfnas.compute import distributed


class MeanOverProcesses(torch.autograd.Function):
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
