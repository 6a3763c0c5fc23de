"""A searchable layer: its candidate operations, and their weighted sum (Eq. 3, Appendix A and C).

`MixedOp` is the paper's layer, in which each operation has its own weights; in `weight_entanglement` they share them.

`plain_block` and `plain_sum` say what is computed, one tensor operation after the other. They are the reference that
tests compare with, and several processes compute with them, since BatchNorm then needs the statistics of all processes.
A single process calls `tfnas.search.fused`, which computes the same with less.

N batch, C channels, H W size, K candidate operations, W the largest number of expansion channels of one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

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


def block(
    x: Tensor,
    weights: Mapping[str, Tensor],
    layer: Layer,
    factor: Tensor | None = None,
    *,
    recompute: bool = False,
) -> Tensor:
    """One operation, its output times `factor` (); `plain_block`, or for a single process with less."""
    if not distributed.is_active():
        u = None if factor is None else factor.view(1)
        return fused_sum(x, [weights], u, layer, recompute=recompute)
    out = plain_block(x, weights, layer)
    return out if factor is None else factor * out


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


class Operation(Protocol):
    """One of a layer's operations; it computes with the first `width` of W expansion channels, and can change that.

    Attributes:
        weights: the active ones, as `plain_block` takes them.
        leaves: the leaf tensors that hold them, which weight steps train, by name; `set_width` may replace them.
    """

    layer: Layer
    width: int
    max_width: int

    @property
    def weights(self) -> dict[str, Tensor]: ...

    @property
    def leaves(self) -> dict[str, Tensor]: ...

    def set_width(self, width: int, importance: str = "depthwise") -> Tensor | None:
        """Compute with the `width` most important channels.

        Args:
            importance: a key of `CHANNEL_IMPORTANCE`.

        Returns:
            (W,) where each channel was before; None when the width is what it was (then the channels stay as well,
            as in the authors' code).
        """

    def restore_width(self, width: int) -> None:
        """Compute with the first `width` channels, as in a saved state."""

    def moved(self, name: str, values: Tensor, before: int, order: Tensor) -> Tensor:
        """Values that belong to a leaf's entries (momentum), where `set_width` has moved the entries.

        Args:
            values: shaped as the leaf was.
            before: the width before.
            order: what `set_width` returned.
        """


class CandidateOperation(nn.Module):
    """An MBInvRes block (Appendix A) that owns weights for its largest width and computes with `width` channels.

    The buffers hold the full-width weights, and their first `width` channels are the active ones; `weights` are
    leaf tensors that share the memory of that part. So a step trains active channels in place, without slicing,
    and leaves the dropped ones (momentum and weight decay included) exactly as they were until they come back.
    """

    def __init__(self, layer: Layer, candidate: Candidate) -> None:
        super().__init__()
        self.layer, self.name = layer, candidate.name
        self.max_width = largest_width(layer, candidate)
        self.width = candidate.initial_width(layer.in_channels)
        se_channels = candidate.se_channels(layer.in_channels)
        for name, tensor in initial_weights(layer, self.max_width, candidate.kernel, se_channels).items():
            self.register_buffer(name, tensor)
        self.weights = self._active()

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The active weights: they are leaves themselves."""
        return self.weights

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        return block(x, self.weights, self.layer)

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

    def moved(self, name: str, values: Tensor, before: int, order: Tensor) -> Tensor:
        """Momentum moves with its channel; a channel that comes back starts without any."""
        axis = CHANNEL_AXIS[name]
        if axis is None:
            return values
        full = torch.zeros_like(self.get_buffer(name))
        full.narrow(axis, 0, before).copy_(values)
        return full.index_select(axis, order).narrow(axis, 0, self.width).clone()

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


class SearchableLayer(nn.Module):
    """The K candidate operations of one searchable layer, and how it computes with one or with all of them."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def all_operations(self) -> Sequence[Operation]:
        """The K operations in the order of the space's candidates."""
        raise NotImplementedError

    def operation(self, index: int) -> Operation:
        return self.all_operations()[index]

    def leaves(self) -> list[Tensor]:
        """The tensors that weight steps train, in an order that stays."""
        raise NotImplementedError

    def forward_path(self, x: Tensor, index: int, weight: Tensor | None = None, *, recompute: bool = False) -> Tensor:
        """One operation alone: a sampled path passes through it.

        Args:
            weight: factor of its output, (); None: 1.
            recompute: keep no activations for the backward pass, which computes them again.
        """
        return block(x, self.operation(index).weights, self.layer, weight, recompute=recompute)

    def forward_mixed(self, x: Tensor, weights: Tensor, *, recompute: bool = False) -> Tensor:
        """All operations, weighted by the (K,) u of Eq. 3 (architecture steps, as in the authors' code).

        Args:
            recompute: keep no activations for the backward pass, which computes them again.
        """
        active = [operation.weights for operation in self.all_operations()]
        if distributed.is_active():
            return plain_sum(x, active, weights, self.layer)
        return fused_sum(x, active, weights, self.layer, recompute=recompute)


class MixedOp(SearchableLayer):
    """A layer in which each operation has its own weights, as in the paper."""

    def __init__(self, layer: Layer, candidates: Sequence[Candidate]) -> None:
        super().__init__(layer)
        self.operations = nn.ModuleList(CandidateOperation(layer, candidate) for candidate in candidates)

    def all_operations(self) -> list[CandidateOperation]:
        return [operation for operation in self.operations if isinstance(operation, CandidateOperation)]

    def operation(self, index: int) -> CandidateOperation:
        return self.all_operations()[index]

    def leaves(self) -> list[Tensor]:
        """The active weights, operation by operation."""
        return [weight for operation in self.all_operations() for weight in operation.weights.values()]


def largest_width(layer: Layer, candidate: Candidate) -> int:
    """The most expansion channels of a candidate in a layer.

    Raises:
        UserError: the smallest width is not above the input channels, and cannot be searched.
    """
    low, high = candidate.width_range(layer.in_channels)
    if low <= layer.in_channels:
        raise UserError(
            f"space: candidate {candidate.name}: expand_range {list(candidate.expand_range)} begins with"
            f" {low} channels at {layer.in_channels} input channels, where the expansion disappears;"
            " search needs more expansion than input channels: begin it above 1"
        )
    return high


def initial_weights(layer: Layer, width: int, kernel: int, se_channels: int) -> dict[str, Tensor]:
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
