"""The plain form of a searchable layer (Appendix A, Eq. 3): one differentiable tensor operation after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional

ACTIVATIONS = {"relu": functional.relu, "relu6": functional.relu6, "swish": functional.silu}


def plain_operation(x: Tensor, weights: Mapping[str, Tensor], *, stride: int, act: str, residual: bool) -> Tensor:
    """An MBInvRes block with the given active weights; BatchNorm with batch statistics."""
    activation = ACTIVATIONS[act]
    out = activation(_batch_norm(functional.conv2d(x, weights["expand"])))
    kernel = weights["depthwise"]
    padding = kernel.shape[-1] // 2
    out = activation(_batch_norm(functional.conv2d(out, kernel, stride=stride, padding=padding, groups=len(kernel))))
    if "se_reduce" in weights:
        pooled = out.mean((2, 3), keepdim=True)
        reduced = activation(functional.conv2d(pooled, weights["se_reduce"], weights["se_reduce_bias"]))
        out = out * functional.conv2d(reduced, weights["se_expand"], weights["se_expand_bias"]).sigmoid()
    out = _batch_norm(functional.conv2d(out, weights["project"]))
    return x + out if residual else out


def plain_mixed(
    x: Tensor, operations: Sequence[Mapping[str, Tensor]], u: Tensor, *, stride: int, act: str, residual: bool
) -> Tensor:
    """Sum of u_k o_k(x) over all operations, Eq. 3."""
    outputs = (plain_operation(x, weights, stride=stride, act=act, residual=residual) for weights in operations)
    return sum(weight * output for weight, output in zip(u, outputs, strict=True))


def _batch_norm(x: Tensor) -> Tensor:
    return functional.batch_norm(x, None, None, training=True)
