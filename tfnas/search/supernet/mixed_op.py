"""A searchable layer: its candidate operations with shared weights, and their weighted sum (Eq. 3, Appendix A and C).

`plain_block` and `plain_sum` say what is computed, one tensor operation after the other. They are the reference that
tests compare with, and several processes compute with them, since BatchNorm then needs the statistics of all processes.
A single process calls `tfnas.search.fused`, which computes the same with less.

N batch, C channels, H W size, K candidate operations, W the largest number of expansion channels of one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.compute import distributed
from tfnas.jobs.errors import UserError
from tfnas.search.fused import fused_sum
from tfnas.search.scaling.widths import channel_order
from tfnas.space import Candidate, Layer

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "swish": functional.silu,
}
EPSILON = 1e-5


def batch_norm(x: Tensor) -> Tensor:
    """Zero mean and unit variance in each channel, over the batch of all processes; (N, C, H, W).

    Always by the statistics of the batch, with nothing learned and nothing remembered (as in the authors' code).
    """
    return _synchronized(x) if distributed.is_active() else functional.batch_norm(x, None, None, training=True)


class BatchNorm(nn.Module):
    """`batch_norm` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x)


def _synchronized(x: Tensor) -> Tensor:
    """In float32, as torch's own under autocast."""
    wide = x if x.dtype == torch.float64 else x.float()
    centered, _, variance = distributed.statistics_over_processes(wide)
    return (centered * (variance[:, None, None] + EPSILON).rsqrt()).to(x.dtype)


def plain_block(x: Tensor, weights: Mapping[str, Tensor], layer: Layer) -> Tensor:
    """An MBInvRes block (Appendix A) with an operation's active weights; (N, C_in, H, W) to (N, C_out, H', W')."""
    act = ACTIVATIONS[layer.act]
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


def weighted_sum(weights: Tensor, outputs: Iterable[Tensor]) -> Tensor:
    """Sum of w_i x_i (Eq. 3, Eq. 5), one term at a time."""
    terms = (weight * output for weight, output in zip(weights, outputs, strict=True))
    return functools.reduce(torch.add, terms)


def plain_sum(x: Tensor, operations: Sequence[Mapping[str, Tensor]], u: Tensor, layer: Layer) -> Tensor:
    """Sum of u_k o_k(x) over a layer's operations, Eq. 3; (N, C_in, H, W) to (N, C_out, H', W')."""
    return weighted_sum(u, (plain_block(x, weights, layer) for weights in operations))


# The axis that counts expansion channels, in each of an operation's weights.
CHANNEL_AXIS: dict[str, int | None] = {
    "expand": 0,
    "depthwise": 0,
    "se_reduce": 1,
    "se_reduce_bias": None,
    "se_expand": 0,
    "se_expand_bias": 0,
    "project": 1,
}


class CandidateOperation(nn.Module):
    """An MBInvRes block (Appendix A) that owns weights for its largest width and computes with `width` channels.

    The buffers hold the full-width weights, and their first `width` channels are the active ones; `weights` are
    leaf tensors that share the memory of that part. So a step trains active channels in place, without slicing,
    and leaves the dropped ones (momentum and weight decay included) exactly as they were until they come back.
    """

    def __init__(self, layer: Layer, candidate: Candidate) -> None:
        super().__init__()
        self.layer, self.name = layer, candidate.name
        low, self.max_width = candidate.width_range(layer.in_channels)
        if low <= layer.in_channels:
            raise UserError(
                f"space: candidate {candidate.name}: expand_range {list(candidate.expand_range)} begins with"
                f" {low} channels at {layer.in_channels} input channels, where the expansion disappears;"
                " search needs more expansion than input channels: begin it above 1"
            )
        self.width = candidate.initial_width(layer.in_channels)
        se_channels = candidate.se_channels(layer.in_channels)
        for name, tensor in _initial_weights(layer, self.max_width, candidate.kernel, se_channels).items():
            self.register_buffer(name, tensor)
        self.weights = self._active()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        if distributed.is_active():
            return plain_block(x, self.weights, self.layer)
        return fused_sum(x, [self.weights], None, self.layer)

    @torch.no_grad()
    def set_width(self, width: int, importance: str = "depthwise") -> Tensor | None:
        """Keep the `width` most important of all W channels; those dropped before compete with the others.

        Args:
            importance: a key of `CHANNEL_IMPORTANCE`.

        Returns:
            (W,) where each channel was before, kept ones first; None when the width is what it was (then the
            channels stay as well, as in the authors' code).
        """
        assert 1 <= width <= self.max_width
        if width == self.width:
            return None
        order = channel_order(dict(self.named_buffers()), width, importance)
        for name, tensor in self.named_buffers():
            axis = CHANNEL_AXIS[name]
            if axis is not None:
                tensor.copy_(tensor.index_select(axis, order))
        self.restore_width(width)
        return order

    def restore_width(self, width: int) -> None:
        """Make the first `width` channels the active ones, as in a saved state; `weights` are new leaves then."""
        self.width = width
        self.weights = self._active()

    def _active(self) -> dict[str, Tensor]:
        parts = {}
        for name, tensor in self.named_buffers():
            axis = CHANNEL_AXIS[name]
            part = tensor if axis is None else tensor.narrow(axis, 0, self.width)
            parts[name] = part.detach().requires_grad_()
        return parts

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> CandidateOperation:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.weights = self._active()  # the buffers have moved (to a device, say)
        return self


class MixedOp(nn.Module):
    """The K candidate operations of one searchable layer."""

    def __init__(self, layer: Layer, candidates: Sequence[Candidate]) -> None:
        super().__init__()
        self.layer = layer
        self.operations = nn.ModuleList(CandidateOperation(layer, candidate) for candidate in candidates)

    def operation(self, index: int) -> CandidateOperation:
        operation = self.operations[index]
        assert isinstance(operation, CandidateOperation)
        return operation

    def forward_path(self, x: Tensor, index: int) -> Tensor:
        """One operation alone: a sampled path passes through it."""
        return self.operations[index](x)

    def forward_mixed(self, x: Tensor, weights: Tensor, *, recompute: bool = False) -> Tensor:
        """All operations, weighted by the (K,) u of Eq. 3 (architecture steps, as in the authors' code).

        Args:
            recompute: keep no activations for the backward pass, which computes them again.
        """
        active = [self.operation(i).weights for i in range(len(self.operations))]
        if distributed.is_active():
            return plain_sum(x, active, weights, self.layer)
        return fused_sum(x, active, weights, self.layer, recompute=recompute)


def _initial_weights(layer: Layer, width: int, kernel: int, se_channels: int) -> dict[str, Tensor]:
    """PyTorch's own initialization of convolutions, biases at zero (as in the authors' code)."""
    shapes = {"expand": (width, layer.in_channels, 1, 1), "depthwise": (width, 1, kernel, kernel)}
    if se_channels:
        shapes |= {"se_reduce": (se_channels, width, 1, 1), "se_expand": (width, se_channels, 1, 1)}
    shapes["project"] = (layer.out_channels, width, 1, 1)
    weights = {}
    for name, shape in shapes.items():
        weights[name] = nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5))
        if name.startswith("se_"):
            weights[f"{name}_bias"] = torch.zeros(shape[0])
    return weights
