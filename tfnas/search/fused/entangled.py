"""The weighted sum of operations that share one bank of weights, as one differentiable function.

Nested operations (`tfnas/search/supernet/weight_entanglement.py`) have most of their arithmetic in common. The
expansion with its statistics and activation is one for all, at the largest width. The depthwise convolution with
BatchNorm, activation and means is one for each kernel size. Only projections and the last BatchNorm belong to each
operation (`projections.py`).

N batch, C channels, H W size, K operations, W the largest of their widths.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tfnas.search.fused.expansion import (
    expansion,
    expansion_backward,
    input_gradient,
    normalized_expansion,
    worthwhile_statistics,
)
from tfnas.search.fused.kernels import (
    ACTIVATIONS,
    Excited,
    InputStatistics,
    batch_norm,
    batch_norm_backward,
    depthwise,
    depthwise_backward_input,
    depthwise_backward_weight,
    normalized_backward,
    statistics_dtype,
)
from tfnas.search.fused.projections import Bank, Operation, Projections

if TYPE_CHECKING:
    from tfnas.search.supernet.weight_entanglement import Share

# Kernel sizes with at least this part of the largest width are computed at the largest: that saves copying channels.
NEARLY_ALL = 0.9


class Layout(NamedTuple):
    """How a layer is computed."""

    stride: int
    act: str
    residual: bool
    shares: tuple[Share, ...]
    names: tuple[str, ...]  # of the bank's tensors
    dtype: torch.dtype  # to compute in
    recompute: bool  # keep no activations for the backward pass


def sum_of_shares(layout: Layout, x: Tensor, bank: Mapping[str, Tensor], u: Tensor) -> Tensor:
    """Weighted sum of a layer's operations, (N, C_in, H, W) to (N, C_out, H', W'); u is (K,)."""
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = _Shares.apply(layout, x, u, *bank.values())
    return out


class _Shares(torch.autograd.Function):
    """`sum_of_shares`."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, x: Tensor, u: Tensor, *tensors: Tensor) -> Tensor:
        x = x.to(layout.dtype).contiguous(memory_format=torch.channels_last)
        bank, statistics = dict(zip(layout.names, tensors, strict=True)), worthwhile_statistics(x)
        expanded, mean, scale = expansion(x, _expand(layout, bank), statistics)
        act = ACTIVATIONS[layout.act]
        activated = act.inplace(expanded) if layout.recompute else act.forward(expanded)
        kept: list[Tensor | None] = [None if layout.recompute else expanded, mean, scale]
        del expanded
        out = None
        for branch in _branches(layout, bank):
            part, own = branch.forward(activated, u)
            out = part if out is None else out.add_(part)
            kept += own
        assert out is not None
        if layout.residual:
            out = out.addcmul_(x, u.sum().to(x.dtype))
        ctx.layout = layout
        ctx.save_for_backward(x, u, *(statistics or (None, None)), *tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            return _backward(ctx, grad.contiguous(memory_format=torch.channels_last))


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    layout, saved = ctx.layout, iter(ctx.saved_tensors)
    x, u, x_mean, x_covariance = itertools.islice(saved, 4)
    statistics = None if x_mean is None else InputStatistics(x_mean, x_covariance)
    bank = dict(zip(layout.names, saved, strict=False))
    expanded, mean, scale = itertools.islice(saved, 3)
    needs_weights, weight = any(ctx.needs_input_grad[3:]), _expand(layout, bank)
    if expanded is None:
        expanded = normalized_expansion(x, weight, mean, scale)
    act = ACTIVATIONS[layout.act]
    activated = act.forward(expanded) if needs_weights or layout.recompute else expanded
    inner, u_grad = None, torch.zeros_like(u)
    bank_grad = {name: torch.zeros_like(tensor) for name, tensor in bank.items()} if needs_weights else {}
    for branch in _branches(layout, bank):
        own = list(itertools.islice(saved, branch.kept_size))
        part = branch.backward(grad, activated, own, u, u_grad, bank_grad)
        inner = _accumulated(inner, part)
    del activated
    assert inner is not None
    inner = act.backward_inplace(inner, expanded)
    parts, weight_grad = expansion_backward(inner, x, expanded, weight, scale, statistics, needs_weight=needs_weights)
    x_grad = input_gradient(parts, x, statistics)
    if weight_grad is not None:
        bank_grad["expand"][: len(weight), :, 0, 0] = weight_grad
    if layout.residual:
        x_grad.addcmul_(grad, u.sum().to(grad.dtype))
        u_grad += (grad * x).sum(dtype=u.dtype)
    return None, x_grad, u_grad, *(bank_grad.get(name) for name in layout.names)


def _expand(layout: Layout, bank: Bank) -> Tensor:
    """(W, C_in)."""
    return bank["expand"][: max(share.width for share in layout.shares)].flatten(1)


def _branches(layout: Layout, bank: Bank) -> Iterator[_Branch]:
    for kernel in dict.fromkeys(share.kernel for share in layout.shares):
        own = [Operation(i, s.width, s.se_channels) for i, s in enumerate(layout.shares) if s.kernel == kernel]
        yield _Branch(layout, bank, kernel, sorted(own, key=lambda operation: operation.width))


def _accumulated(total: Tensor | None, part: Tensor) -> Tensor:
    """Sum of (N, w, H, W) and (N, w', H, W), the narrower one being that of the first channels."""
    if total is None:
        return part
    if part.shape[1] > total.shape[1]:
        total, part = part, total
    (total if part.shape == total.shape else total[:, : part.shape[1]]).add_(part)
    return total


class _Kept(NamedTuple):
    """What the backward pass needs of a kernel size, besides what it needs of each operation."""

    depthwised: Tensor | None  # (N, w, H', W') normalized; None: recomputed
    mean: Tensor  # (w,)
    scale: Tensor  # 1 / standard deviation


class _KeptOfOperation(NamedTuple):
    projected: Tensor | None  # (N, C_out, H', W'); None: recomputed
    mean: Tensor  # (C_out,)
    scale: Tensor
    pooled: Tensor | None  # of squeeze-and-excitation
    reduced: Tensor | None
    factors: Tensor | None

    def excited(self) -> Excited | None:
        if self.pooled is None or self.reduced is None or self.factors is None:
            return None
        return Excited(self.pooled, self.reduced, self.factors)


class _Branch:
    """The operations with one kernel size, from the narrowest to the widest."""

    def __init__(self, layout: Layout, bank: Bank, kernel: int, operations: Sequence[Operation]) -> None:
        self._layout, self._operations, self._act = layout, operations, ACTIVATIONS[layout.act]
        largest, width = max(share.width for share in layout.shares), operations[-1].width
        self._width = largest if width >= NEARLY_ALL * largest else width
        margin = (bank["depthwise"].shape[-1] - kernel) // 2
        self._centre = (slice(self._width), slice(None), slice(margin, margin + kernel), slice(margin, margin + kernel))
        self._kernel = bank["depthwise"][self._centre].contiguous()
        self._projections = Projections(bank, operations, self._act, layout.dtype)
        self.kept_size = len(_Kept._fields) + len(operations) * len(_KeptOfOperation._fields)

    def forward(self, activated: Tensor, u: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Weighted sum of the operations (N, C_out, H', W'), and what to keep; the activated expansion is shared."""
        layout = self._layout
        raw = depthwise(self._first(activated), self._kernel.to(layout.dtype), layout.stride)
        depthwised, mean, scale = batch_norm(raw)
        del raw
        y = self._act.inplace(depthwised) if layout.recompute else self._act.forward(depthwised)
        kept = list(_Kept(None if layout.recompute else depthwised, mean, scale))
        del depthwised
        excited = self._projections.excite(y)
        total = None
        projected = self._projections.forward(y, excited)
        for operation, p, own in zip(self._operations, projected, excited, strict=True):
            out, *statistics = batch_norm(p, self._output_scale(u, operation, p))
            total = out if total is None else total.add_(out)
            kept += [None if layout.recompute else p, *statistics, *(own or (None, None, None))]
        assert total is not None
        return total, kept

    def backward(
        self,
        grad: Tensor,
        activated: Tensor,
        kept: Sequence[Tensor | None],
        u: Tensor,
        u_grad: Tensor,
        bank_grad: dict[str, Tensor],
    ) -> Tensor:
        """Gradient of the activated expansion (N, w, H, W), its first channels; adds those of u and of the bank.

        Args:
            activated: only its shape counts unless something is recomputed or the bank needs gradients.
            bank_grad: empty if the bank needs none.
        """
        own, of_operations = self._unpacked(kept)
        scaled = (self._kernel * own.scale.view(-1, 1, 1, 1)).to(self._layout.dtype)
        first = self._first(activated) if self._layout.recompute or bank_grad else activated[:, : self._width]
        depthwised = own.depthwised
        if depthwised is None:
            depthwised = depthwise(first, scaled, self._layout.stride, (own.mean * own.scale).neg_().to(scaled.dtype))
        excited = [one.excited() for one in of_operations]
        used = bank_grad or self._layout.recompute or self._projections.excites
        y = self._act.forward(depthwised) if used else depthwised
        grads = self._normalization_backward(grad, y, of_operations, excited, u, u_grad)
        inner = self._projections.backward(grads, y, excited, bank_grad)
        del y, grads
        inner = normalized_backward(self._act.backward_inplace(inner, depthwised), depthwised)
        del depthwised
        if bank_grad:
            weight_grad = depthwise_backward_weight(inner, first, self._kernel.to(inner.dtype), self._layout.stride)
            bank_grad["depthwise"][self._centre] += weight_grad * own.scale.view(-1, 1, 1, 1)
        return depthwise_backward_input(inner, first, scaled, self._layout.stride)

    def _normalization_backward(
        self,
        grad: Tensor,
        y: Tensor,
        kept: Sequence[_KeptOfOperation],
        excited: Sequence[Excited | None],
        u: Tensor,
        u_grad: Tensor,
    ) -> list[Tensor]:
        """Gradients of the operations' projections; adds those of u."""
        grads = []
        again = self._projections.forward(y, excited) if self._layout.recompute else [None] * len(kept)
        for operation, one, projected in zip(self._operations, kept, again, strict=True):
            p = one.projected if projected is None else projected
            assert p is not None
            inner, scale_grad = batch_norm_backward(grad, p, one.mean, one.scale, self._output_scale(u, operation, p))
            u_grad[operation.place] = scale_grad.sum()
            grads.append(inner)
        return grads

    def _first(self, x: Tensor) -> Tensor:
        """The channels that this kernel size computes with."""
        if self._width == x.shape[1]:
            return x
        return x[:, : self._width].contiguous(memory_format=torch.channels_last)

    def _output_scale(self, u: Tensor, operation: Operation, p: Tensor) -> Tensor:
        """u_k is the scale of the last BatchNorm, (C_out,)."""
        return u[operation.place].to(statistics_dtype(p.dtype)).repeat(p.shape[1])

    def _unpacked(self, kept: Sequence[Tensor | None]) -> tuple[_Kept, list[_KeptOfOperation]]:
        values = iter(kept)
        own = _Kept(*itertools.islice(values, len(_Kept._fields)))  # type: ignore[arg-type]
        size = len(_KeptOfOperation._fields)
        return own, [_KeptOfOperation(*itertools.islice(values, size)) for _ in self._operations]  # type: ignore[arg-type]
