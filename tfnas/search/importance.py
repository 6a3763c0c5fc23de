"""Which expansion channels of an operation are worth keeping (Appendix C)."""

from __future__ import annotations

import torch
from torch import Tensor


def channel_importance(depthwise: Tensor) -> Tensor:
    """L1 norm of each channel's (1, k, k) depthwise kernel: (W, 1, k, k) to (W,).

    The paper says "its corresponding weight"; the depthwise kernel is the authors' choice.
    """
    return depthwise.abs().sum((1, 2, 3))


def channel_order(depthwise: Tensor, width: int) -> Tensor:
    """(W,) channels with the `width` most important ones first; both parts in the order they had."""
    ranked = channel_importance(depthwise).argsort(descending=True, stable=True)
    return torch.cat([ranked[:width].sort().values, ranked[width:].sort().values])
