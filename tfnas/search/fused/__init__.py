"""The weighted sum of a layer's operations, computed with less; `fused_sum` is the only way in.

The plain form is `plain_sum` in `tfnas/search/supernet/mixed_op.py`, and the results are equal up to rounding. What
differs:

- The expansion's BatchNorm is part of its convolution: with x of mean m and covariance C, W x has variances
  diag(W C W^T), so the normalized output is a convolution of x with scaled weights and a bias. All candidates share m
  and C. The backward pass needs no normalization either, only sums.
- The normalized expansion and depthwise output are all that is kept for the backward pass; activations are computed
  again. With `recompute` not even these: two convolutions give them back, since their statistics are kept.
- u_k is the scale of the projection's BatchNorm, so that its gradient comes with that of the input.
- Operations of one kernel size can be computed together, along the channels: fewer, larger tensor operations.

N batch, C channels, H W size, K operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tfnas.search.fused import entangled
from tfnas.search.fused.blocks import Layout, sum_of_blocks
from tfnas.space import Layer

if TYPE_CHECKING:
    from tfnas.search.supernet.weight_entanglement import Share

# Operations of one kernel size are computed together where all candidates have at most this many expanded values:
# beyond that, one after the other stays in the cache. A GPU is bound by the number of tensor operations instead.
JOINED_VALUES = 3_000_000

Groups = tuple[tuple[int, ...], ...]


def fused_sum(
    x: Tensor,
    operations: Sequence[Mapping[str, Tensor]],
    u: Tensor | None,
    layer: Layer,
    *,
    recompute: bool = False,
) -> Tensor:
    """Sum of u_k o_k(x) over a layer's operations, (N, C_in, H, W) to (N, C_out, H', W').

    Differentiable, once, with respect to x, the operations' weights and u. Under autocast it computes in its precision.

    Args:
        operations: active weights of each, by name.
        u: (K,) of Eq. 3; None: there is one operation, and its weight is 1.
        recompute: keep no activations for the backward pass, which computes them again.
    """
    kind = x.device.type
    layout = Layout(
        stride=layer.stride,
        act=layer.act,
        residual=layer.stride == 1 and layer.in_channels == layer.out_channels,
        groups=_groups(x, operations),
        names=tuple(tuple(weights) for weights in operations),
        dtype=torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype,
        recompute=recompute,
    )
    return sum_of_blocks(layout, x, operations, u)


def _groups(x: Tensor, operations: Sequence[Mapping[str, Tensor]]) -> Groups:
    """Which operations are computed together: those of one kernel size, or each by itself."""
    values = x.numel() // x.shape[1] * sum(len(weights["expand"]) for weights in operations)
    if not x.is_cuda and values > JOINED_VALUES:
        return tuple((i,) for i in range(len(operations)))
    kernels = [weights["depthwise"].shape[-1] for weights in operations]
    return tuple(tuple(i for i, k in enumerate(kernels) if k == kernel) for kernel in dict.fromkeys(kernels))


def fused_entangled_sum(
    x: Tensor,
    bank: Mapping[str, Tensor],
    shares: Sequence[Share],
    u: Tensor,
    layer: Layer,
    *,
    recompute: bool = False,
) -> Tensor:
    """Sum of u_k o_k(x) (Eq. 3) over operations that share one bank of weights, (N, C_in, H, W) to (N, C_out, H', W').

    Equal to `plain_sum` over the `entangled_weights` of each (`tfnas/search/supernet/weight_entanglement.py`).
    Differentiable, once, with respect to x, the bank and u. Under autocast it computes in its precision.

    Args:
        bank: the layer's weights at full size, by name.
        shares: which part of the bank each operation computes with.
        u: (K,) of Eq. 3.
        recompute: keep no activations for the backward pass, which computes them again.
    """
    kind = x.device.type
    layout = entangled.Layout(
        stride=layer.stride,
        act=layer.act,
        residual=layer.stride == 1 and layer.in_channels == layer.out_channels,
        shares=tuple(shares),
        names=tuple(bank),
        dtype=torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype,
        recompute=recompute,
    )
    return entangled.sum_of_shares(layout, x, bank, u)
