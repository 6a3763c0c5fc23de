"""An MBInvRes block of the supernet step by step (Appendix A): the form for several processes.

`block_function` computes the same with less, but from the batch of one process; here BatchNorm's statistics are
those of all processes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from tfnas.search.batch_norm import batch_norm
from tfnas.search.block_kernels import ACTIVATIONS
from tfnas.space import Layer


def plain_block(x: Tensor, weights: Mapping[str, Tensor], layer: Layer) -> Tensor:
    """(N, C_in, H, W) to (N, C_out, H', W'), with the active weights of one operation."""
    act = ACTIVATIONS[layer.act].forward
    out = act(batch_norm(functional.conv2d(x, weights["expand"])))
    depthwise = weights["depthwise"]
    padding = depthwise.shape[-1] // 2
    out = functional.conv2d(out, depthwise, stride=layer.stride, padding=padding, groups=len(depthwise))
    out = act(batch_norm(out))
    if "se_reduce" in weights:
        reduced = functional.conv2d(out.mean((2, 3), keepdim=True), weights["se_reduce"], weights["se_reduce_bias"])
        out = out * functional.conv2d(act(reduced), weights["se_expand"], weights["se_expand_bias"]).sigmoid()
    out = batch_norm(functional.conv2d(out, weights["project"]))
    return x + out if layer.stride == 1 and layer.in_channels == layer.out_channels else out
