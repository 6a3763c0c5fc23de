"""Networks whose outputs mean something."""

from __future__ import annotations

import torch


def vary_batch_norm(module: torch.nn.Module) -> torch.nn.Module:
    """BatchNorm that does something, so that a wrong folding shows."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 2.0)
            torch.nn.init.normal_(layer.bias)
            torch.nn.init.normal_(layer.running_mean)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return module.eval()
