"""A layer's operations as one differentiable function, forward and backward; `tfnas.search.fused` has the formulas.

K operations of a group, M their expansion channels together, one operation's after the other's; N batch, C channels,
H W size, P = N H W.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tfnas.search.fused.expansion import (
    InputGradient,
    expansion,
    expansion_backward,
    input_gradient,
    normalized_expansion,
    worthwhile_statistics,
)
from tfnas.search.fused.kernels import (
    ACTIVATIONS,
    Excited,
    Gradients,
    InputStatistics,
    Weights,
    batch_norm,
    batch_norm_backward,
    depthwise,
    depthwise_backward_input,
    depthwise_backward_weight,
    excite_inplace,
    maps,
    normalized_backward,
    project,
    project_backward,
    rows,
)


class Layout(NamedTuple):
    """How a layer's operations are computed."""

    stride: int
    act: str
    residual: bool
    groups: tuple[tuple[int, ...], ...]  # of operations that are computed together, each of one kernel size
    names: tuple[tuple[str, ...], ...]  # of each operation's weights
    dtype: torch.dtype  # to compute in
    recompute: bool  # keep no activations for the backward pass


def sum_of_blocks(layout: Layout, x: Tensor, operations: Sequence[Weights], u: Tensor | None) -> Tensor:
    """Weighted sum of a layer's operations, (N, C_in, H, W) to (N, C_out, H', W').

    Args:
        operations: active weights of each, by name.
        u: their weights, (K,); None: there is one operation, and its weight is 1.
    """
    tensors = [tensor for operation in operations for tensor in operation.values()]
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = _Blocks.apply(layout, x, u, *tensors)
    return out


class _Blocks(torch.autograd.Function):
    """`sum_of_blocks`."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, x: Tensor, weights: Tensor | None, *tensors: Tensor) -> Tensor:
        x = x.to(layout.dtype).contiguous(memory_format=torch.channels_last)
        statistics = worthwhile_statistics(x)
        channels = tensors[layout.names[0].index("project")].shape[0]
        u = None if weights is None else weights.unbind()
        out, kept = None, list[Tensor | None]()
        ctx.excited = []
        for members, group in zip(layout.groups, _groups(layout, tensors), strict=True):
            scale = None if u is None else torch.stack([u[i] for i in members]).repeat_interleave(channels)
            part, own, excited = group.forward(x, statistics, scale, recompute=layout.recompute)
            if len(members) > 1:
                part = maps(rows(part).view(-1, len(members), channels).sum(1), like=part)
            out = part if out is None else out.add_(part)
            kept += own
            ctx.excited.append([one is not None for one in excited])
            kept += (tensor for one in excited if one is not None for tensor in one)
        assert out is not None
        if layout.residual:
            out = out.add_(x) if weights is None else out.addcmul_(x, weights.sum().to(x.dtype))
        ctx.layout = layout
        ctx.save_for_backward(x, weights, *(statistics or (None, None)), *tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            return _backward(ctx, grad.contiguous(memory_format=torch.channels_last))


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    layout, saved = ctx.layout, iter(ctx.saved_tensors)
    x, weights, mean, covariance = (next(saved) for _ in range(4))
    statistics = None if mean is None else InputStatistics(mean, covariance)
    tensors = [next(saved) for names in layout.names for _ in names]
    needs_weights, u_grad, found = any(ctx.needs_input_grad[3:]), dict[int, Tensor](), dict[int, dict[str, Tensor]]()
    total = None
    for members, group, has in zip(layout.groups, _groups(layout, tensors), ctx.excited, strict=True):
        kept = Kept(*itertools.islice(saved, len(Kept._fields)))
        excited = [Excited(*itertools.islice(saved, len(Excited._fields))) if one else None for one in has]
        own = grad if len(members) == 1 else maps(rows(grad).repeat(1, len(members)), like=grad)
        inner, scale_grad, gradients = group.backward(own, x, kept, excited, statistics, needs_weights=needs_weights)
        total = inner if total is None else _added(total, inner)
        found |= dict(zip(members, gradients, strict=True))
        if weights is not None:
            u_grad |= dict(zip(members, scale_grad.view(len(members), -1).sum(1).unbind(), strict=True))
    assert total is not None
    x_grad = input_gradient(total, x, statistics)
    weights_grad = torch.stack([u_grad[i] for i in range(len(u_grad))]) if u_grad else None
    if layout.residual and weights is None:
        x_grad.add_(grad)
    elif layout.residual:
        x_grad.addcmul_(grad, weights.sum().to(grad.dtype))
        weights_grad += (grad * x).sum(dtype=weights.dtype)
    flat = [found[i].get(name) for i, names in enumerate(layout.names) for name in names]
    return None, x_grad, weights_grad, *flat


def _added(total: InputGradient, inner: InputGradient) -> InputGradient:
    return InputGradient(*(None if a is None else a.add_(b) for a, b in zip(total, inner, strict=True)))  # type: ignore[arg-type]


def _groups(layout: Layout, tensors: Sequence[Tensor]) -> Iterator[Group]:
    left = iter(tensors)
    operations = [{name: next(left) for name in names} for names in layout.names]
    for members in layout.groups:
        yield Group([operations[i] for i in members], layout.stride, layout.act, layout.dtype)


class Kept(NamedTuple):
    """What the backward pass needs besides the layer's input; scales are 1 / standard deviation."""

    expand: Tensor  # (M, C), the weights of all operations
    expanded: Tensor | None  # (N, M, H, W) normalized; None: recomputed
    expand_mean: Tensor  # (M,)
    expand_scale: Tensor
    depthwise: Tensor  # (M, 1, k, k)
    depthwised: Tensor | None  # (N, M, H', W') normalized; None: recomputed
    depthwise_mean: Tensor
    depthwise_scale: Tensor
    projected: Tensor  # (N, K C_out, H', W')
    project_mean: Tensor  # (K C_out,)
    project_scale: Tensor
    output_scale: Tensor | None  # (K C_out,) of the last BatchNorm


class Group:
    """The arithmetic; `operations` are the active weights of each operation, by name."""

    def __init__(self, operations: Sequence[Weights], stride: int, act: str, dtype: torch.dtype) -> None:
        self.operations, self._stride, self._act, self._dtype = operations, stride, ACTIVATIONS[act], dtype
        widths = [len(weights["expand"]) for weights in operations]
        self._parts = [slice(end - width, end) for end, width in zip(itertools.accumulate(widths), widths, strict=True)]

    def forward(
        self, x: Tensor, statistics: InputStatistics | None, output_scale: Tensor | None, *, recompute: bool
    ) -> tuple[Tensor, Kept, list[Excited | None]]:
        """(N, K C_out, H', W') and what to keep; without statistics of x, the expansion is normalized by itself.

        Args:
            output_scale: (K C_out,) of the last BatchNorm.
            recompute: keep less.
        """
        act = self._act.inplace if recompute else self._act.forward
        expand, kernel = self._joined("expand").flatten(1), self._joined("depthwise")
        expanded, expand_mean, expand_scale = expansion(x, expand, statistics)
        raw = depthwise(act(expanded), kernel.to(self._dtype), self._stride)
        kept_expanded = None if recompute else expanded
        del expanded
        depthwised, mean, scale = batch_norm(raw)
        del raw
        out = act(depthwised)
        kept_depthwised = None if recompute else depthwised
        del depthwised
        excited = excite_inplace(out, self.operations, self._parts, self._act)
        projected = project(out, self.operations, self._parts)
        output, project_mean, project_scale = batch_norm(projected, output_scale)
        kept = Kept(
            expand=expand,
            expanded=kept_expanded,
            expand_mean=expand_mean,
            expand_scale=expand_scale,
            depthwise=kernel,
            depthwised=kept_depthwised,
            depthwise_mean=mean,
            depthwise_scale=scale,
            projected=projected,
            project_mean=project_mean,
            project_scale=project_scale,
            output_scale=output_scale,
        )
        return output, kept, excited

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        kept: Kept,
        excited: Sequence[Excited | None],
        statistics: InputStatistics | None,
        *,
        needs_weights: bool,
    ) -> tuple[InputGradient, Tensor, Gradients]:
        """Gradients of input, output scale (K C_out,) and weights (empty unless needed); `grad` is as the output."""
        kernel = self._scaled(kept.depthwise, kept.depthwise_scale)
        expanded, depthwised = self._activations(x, kept, kernel)
        grad, scale_grad = batch_norm_backward(
            grad, kept.projected, kept.project_mean, kept.project_scale, kept.output_scale
        )
        before = self._act.forward(depthwised) if needs_weights or any(excited) else depthwised
        grad, gradients = project_backward(
            grad, before, self.operations, self._parts, excited, self._act, needs_weights=needs_weights
        )
        del before
        grad = normalized_backward(self._act.backward_inplace(grad, depthwised), depthwised)
        del depthwised
        if needs_weights:
            before = self._act.forward(expanded)
            weight_grad = depthwise_backward_weight(grad, before, kept.depthwise.to(self._dtype), self._stride)
            del before
            self._share(gradients, "depthwise", weight_grad * kept.depthwise_scale.view(-1, 1, 1, 1))
        grad = depthwise_backward_input(grad, expanded, kernel, self._stride)
        grad = self._act.backward_inplace(grad, expanded)
        inner, expand_grad = expansion_backward(
            grad, x, expanded, kept.expand, kept.expand_scale, statistics, needs_weight=needs_weights
        )
        if expand_grad is not None:
            self._share(gradients, "expand", expand_grad)
        return inner, scale_grad, gradients

    def _activations(self, x: Tensor, kept: Kept, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """The normalized expansion and depthwise output, as kept or from their kept statistics."""
        if kept.expanded is not None and kept.depthwised is not None:
            return kept.expanded, kept.depthwised
        expanded = normalized_expansion(x, kept.expand, kept.expand_mean, kept.expand_scale)
        shift = (kept.depthwise_mean * kept.depthwise_scale).neg_().to(self._dtype)
        return expanded, depthwise(self._act.forward(expanded), kernel, self._stride, shift)

    def _joined(self, name: str) -> Tensor:
        tensors = [weights[name] for weights in self.operations]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def _share(self, gradients: Gradients, name: str, joined: Tensor) -> None:
        parts = [joined] if len(gradients) == 1 else [joined[part] for part in self._parts]
        for gradient, weights, part in zip(gradients, self.operations, parts, strict=True):
            gradient[name] = part.view(weights[name].shape)

    def _scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        return (weight * scale.view(-1, 1, 1, 1)).to(self._dtype)
