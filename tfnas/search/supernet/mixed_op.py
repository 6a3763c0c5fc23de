"""BatchNorm of the supernet: batch statistics always, nothing learnt, nothing remembered (as the authors' code).

N batch, C channels, H W size.

An MBInvRes block of the supernet step by step (Appendix A): the form for several processes.

`block_function` computes the same with less, but from the batch of one process; here BatchNorm's statistics are
those of all processes.

A searchable layer: its candidate operations with full-width weights, of which a part is active (Appendix C).

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
from tfnas.compute.distributed import statistics_over_processes
from tfnas.jobs.errors import UserError
from tfnas.search.fused.blocks import blocks
from tfnas.search.fused.kernels import ACTIVATIONS
from tfnas.search.scaling.widths import channel_order
from tfnas.space import Candidate, Layer

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

# Operations of one kernel size are computed together ("fused") where all candidates have at most so many expanded
# values: beyond, one after the other stays in the cache. A GPU is bound by the number of operations instead.
FUSED_VALUES = 3_000_000


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
        return blocks(x, [self.weights], None, groups=((0,),), recompute=False, **_shape(self.layer))

    @torch.no_grad()
    def set_width(self, width: int) -> Tensor | None:
        """Keep the `width` most important of all W channels; those dropped before compete with the others.

        Returns:
            (W,) where each channel was before, kept ones first; None when the width is what it was (then the
            channels stay as well, as in the authors' code).
        """
        assert 1 <= width <= self.max_width
        if width == self.width:
            return None
        order = channel_order(self.get_buffer("depthwise"), width)
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
        kernels = dict.fromkeys(candidate.kernel for candidate in candidates)
        self.single = tuple((i,) for i in range(len(candidates)))
        self.fused = tuple(tuple(i for i, c in enumerate(candidates) if c.kernel == kernel) for kernel in kernels)

    def operation(self, index: int) -> CandidateOperation:
        operation = self.operations[index]
        assert isinstance(operation, CandidateOperation)
        return operation

    def forward_path(self, x: Tensor, index: int) -> Tensor:
        """One operation alone: a sampled path passes through it."""
        return self.operations[index](x)

    def forward_mixed(self, x: Tensor, weights: Tensor, *, recompute: bool = False) -> Tensor:
        """All operations, weighted by the (K,) u of Eq. 3 (architecture steps, as the authors' code).

        Args:
            recompute: keep no activations for the backward pass, which computes them again.
        """
        if distributed.is_active():
            return weighted_sum(weights, (operation(x) for operation in self.operations))
        operations = [self.operation(i) for i in range(len(self.operations))]
        values = x.numel() // x.shape[1] * sum(operation.width for operation in operations)
        groups = self.fused if x.is_cuda or values <= FUSED_VALUES else self.single
        active = [operation.weights for operation in operations]
        return blocks(x, active, weights, groups=groups, recompute=recompute, **_shape(self.layer))


def weighted_sum(weights: Tensor, outputs: Iterable[Tensor]) -> Tensor:
    """Sum of w_i x_i, one term at a time."""
    terms = (weight * output for weight, output in zip(weights, outputs, strict=True))
    return functools.reduce(torch.add, terms)


def _shape(layer: Layer) -> dict[str, Any]:
    residual = layer.stride == 1 and layer.in_channels == layer.out_channels
    return {"stride": layer.stride, "act": layer.act, "residual": residual}


def _initial_weights(layer: Layer, width: int, kernel: int, se_channels: int) -> dict[str, Tensor]:
    """PyTorch's own initialisation of convolutions, biases at zero (as the authors' code)."""
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
