"""Operations of one layer and one kernel size, computed together, forward and backward.

K operations of the group, M their expansion channels together, one operation's after the other's; N batch, C channels,
H W size, P = N H W. Formulas: `block_function`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.search.block_kernels import (
    ACTIVATIONS,
    EPS,
    InputStatistics,
    batch_norm,
    batch_norm_backward,
    depthwise,
    depthwise_backward_input,
    depthwise_backward_weight,
    maps,
    pointwise_backward,
    rows,
    statistics_dtype,
)


class Kept(NamedTuple):
    """What a group's backward pass needs beside the layer's input and the weights."""

    expanded: Tensor | None  # (N, M, H, W) normalised; None: recomputed
    expand_shift: Tensor  # (M,) minus mean, divided by the standard deviation
    expand_scale: Tensor  # (M,) 1 / standard deviation
    depthwised: Tensor | None  # (N, M, H', W') normalised; None: recomputed
    depthwise_shift: Tensor
    depthwise_scale: Tensor
    projected: Tensor  # (N, K C_out, H', W')
    project_mean: Tensor
    project_scale: Tensor
    excitation: list[Tensor]  # of each operation with squeeze-and-excitation: pooled, reduced, factors; (N, channels)


class InputGradient(NamedTuple):
    """Gradient of the layer's input x, which is `direct` - `matrix` (x - mean of x) - `constant`."""

    direct: Tensor  # (N, C, H, W)
    matrix: Tensor | None  # (C, C); None: nothing more than `direct`
    constant: Tensor | None  # (C,)


Weights = Mapping[str, Tensor]
Gradients = list[dict[str, Tensor]]  # of each operation's weights


class Group:
    """The arithmetic; `operations` are the active weights of each operation, by name."""

    def __init__(self, operations: Sequence[Weights], stride: int, act: str, dtype: torch.dtype) -> None:
        self.operations, self._stride, self._act, self._dtype = operations, stride, ACTIVATIONS[act], dtype
        widths = [len(weights["expand"]) for weights in operations]
        self._expand, self._depthwise = self._joined("expand"), self._joined("depthwise")  # (M, C, 1, 1), (M, 1, k, k)
        ends = itertools.accumulate(widths)
        self._parts = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]

    def forward(
        self, x: Tensor, statistics: InputStatistics | None, scale: Tensor | None, *, recompute: bool
    ) -> tuple[Tensor, Kept]:
        """(N, K C_out, H', W') and what to keep; without statistics of x, the expansion is normalised by itself.

        Args:
            scale: (K C_out,) of the last BatchNorm.
            recompute: keep less.
        """
        act = self._act.inplace if recompute else self._act.forward
        expanded, expand_shift, expand_scale = self._expansion(x, statistics)
        raw = depthwise(act(expanded), self._depthwise.to(self._dtype), self._stride)
        if recompute:
            del expanded
        depthwised, mean, depthwise_scale = batch_norm(raw)
        del raw
        out = act(depthwised)
        excitation = self._excite(out)
        projected = self._project(out)
        output, project_mean, project_scale = batch_norm(projected, scale)
        kept = Kept(
            None if recompute else expanded,
            expand_shift,
            expand_scale,
            None if recompute else depthwised,
            -mean * depthwise_scale,
            depthwise_scale,
            projected,
            project_mean,
            project_scale,
            excitation,
        )
        return output, kept

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        kept: Kept,
        statistics: InputStatistics | None,
        scale: Tensor | None,
        *,
        needs_weights: bool,
    ) -> tuple[InputGradient, Tensor | None, Gradients]:
        """Gradients of input, scale (K C_out,) and weights (empty unless needed); `grad` is (N, K C_out, H', W')."""
        gradients: Gradients = [{} for _ in self.operations]
        expanded, depthwised = kept.expanded, kept.depthwised
        if expanded is None or depthwised is None:
            expanded = functional.conv2d(
                x, self._scaled(self._expand, kept.expand_scale), self._cast(kept.expand_shift)
            )
            kernel = self._scaled(self._depthwise, kept.depthwise_scale)
            depthwised = depthwise(self._act.forward(expanded), kernel, self._stride, self._cast(kept.depthwise_shift))
        mask = [True, scale is not None, False]
        grad, scale_grad, _ = batch_norm_backward(
            grad, kept.projected, kept.project_mean, kept.project_scale, mask, scale
        )
        grad = self._project_backward(grad, depthwised, kept, gradients, needs_weights=needs_weights)
        grad = _normalised_backward(self._act.backward_inplace(grad, depthwised), depthwised)
        del depthwised
        if needs_weights:
            raw = depthwise_backward_weight(
                grad, self._act.forward(expanded), self._depthwise.to(self._dtype), self._stride
            )
            self._share(gradients, "depthwise", kept.depthwise_scale[:, None, None, None] * raw)
        kernel = self._scaled(self._depthwise, kept.depthwise_scale)
        grad = depthwise_backward_input(grad, expanded, kernel, self._stride)
        grad = self._act.backward_inplace(grad, expanded)
        return (
            self._expansion_backward(grad, x, expanded, kept, statistics, gradients, needs_weights),
            scale_grad,
            gradients,
        )

    def _expansion(self, x: Tensor, statistics: InputStatistics | None) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised expansion, shift and scale."""
        if statistics is None:
            out, mean, scale = batch_norm(functional.conv2d(x, self._cast(self._expand)))
            return out, -mean * scale, scale
        weight = self._expand.flatten(1)
        variance = ((weight @ statistics.covariance) * weight).sum(1)
        scale = (variance.clamp_min_(0.0) + EPS).rsqrt_()
        shift = -(weight @ statistics.mean) * scale
        return functional.conv2d(x, self._scaled(self._expand, scale), self._cast(shift)), shift, scale

    def _expansion_backward(
        self,
        grad: Tensor,
        x: Tensor,
        expanded: Tensor,
        kept: Kept,
        statistics: InputStatistics | None,
        gradients: Gradients,
        needs_weights: bool,
    ) -> InputGradient:
        weight, count = self._scaled(self._expand, kept.expand_scale), len(rows(x))
        if statistics is None:
            grad = _normalised_backward(grad, expanded)
            direct, weight_grad, _ = pointwise_backward(grad, x, weight, needs_weight=needs_weights)
            if weight_grad is not None:
                self._share(gradients, "expand", kept.expand_scale[:, None, None, None] * weight_grad)
            return InputGradient(direct, None, None)
        flat = self._expand.flatten(1) * kept.expand_scale[:, None]
        direct, raw, total = pointwise_backward(grad, x, weight, needs_weight=needs_weights)
        if raw is None or total is None:
            dot, total = _sums(grad, expanded)
        else:
            total = total.to(flat.dtype)
            centred = raw.flatten(1).to(flat.dtype).addr_(total, statistics.mean, alpha=-1)
            dot = (centred * flat).sum(1)
            centred -= dot[:, None] * (flat @ statistics.covariance)
            self._share(gradients, "expand", (kept.expand_scale[:, None] * centred)[:, :, None, None])
        return InputGradient(direct, flat.t() @ (flat * (dot / count)[:, None]), (total / count) @ flat)

    def _excite(self, x: Tensor) -> list[Tensor]:
        """Multiply by the factors of squeeze-and-excitation, in place; returns what its backward needs."""
        kept: list[Tensor] = []
        members = [i for i, weights in enumerate(self.operations) if "se_reduce" in weights]
        if not members:
            return kept
        pooled_all = x.mean((2, 3))
        for i in members:
            weights, part = self.operations[i], self._parts[i]
            pooled = pooled_all[:, part]
            reduced = functional.linear(
                pooled, self._cast(weights["se_reduce"].flatten(1)), self._cast(weights["se_reduce_bias"])
            )
            factors = functional.linear(
                self._act.forward(reduced),
                self._cast(weights["se_expand"].flatten(1)),
                self._cast(weights["se_expand_bias"]),
            ).sigmoid_()
            x[:, part] *= factors[:, :, None, None]
            kept += [pooled, reduced, factors]
        return kept

    def _excite_backward(
        self, grad: Tensor, x: Tensor, weights: Weights, kept: Sequence[Tensor], gradient: dict[str, Tensor] | None
    ) -> None:
        """Of one operation: turn the gradient (N, m, H, W) of the multiplied x into that of x, in place."""
        pooled, reduced, factors = kept
        inner = torch.ops.aten.sigmoid_backward((grad * x).sum((2, 3)), factors)
        outer = self._act.backward_inplace(inner @ self._cast(weights["se_expand"].flatten(1)), reduced)
        if gradient is not None:
            gradient["se_expand"] = (inner.t() @ self._act.forward(reduced))[:, :, None, None]
            gradient["se_expand_bias"] = inner.sum(0)
            gradient["se_reduce"] = (outer.t() @ pooled)[:, :, None, None]
            gradient["se_reduce_bias"] = outer.sum(0)
        mean = outer @ self._cast(weights["se_reduce"].flatten(1)) / (x.shape[2] * x.shape[3])
        torch.addcmul(mean[:, :, None, None].expand_as(grad), grad, factors[:, :, None, None], out=grad)

    def _project(self, x: Tensor) -> Tensor:
        if len(self.operations) == 1:
            return functional.conv2d(x, self._cast(self.operations[0]["project"]))
        kernels = [self._cast(weights["project"].flatten(1)) for weights in self.operations]  # (C_out, m) each
        values, channels = rows(x), len(kernels[0])
        out = values.new_empty(len(values), len(kernels) * channels)
        for i, (kernel, part) in enumerate(zip(kernels, self._parts, strict=True)):
            torch.mm(values[:, part], kernel.t(), out=out[:, i * channels : (i + 1) * channels])
        return maps(out, like=x)

    def _project_backward(
        self, grad: Tensor, depthwised: Tensor, kept: Kept, gradients: Gradients, *, needs_weights: bool
    ) -> Tensor:
        """Gradient before the projection and before squeeze-and-excitation, (N, M, H', W')."""
        x = self._act.forward(depthwised) if needs_weights or kept.excitation else depthwised
        out = torch.empty_like(x) if len(self.operations) > 1 else None
        excitation = iter(kept.excitation)
        grads = grad.chunk(len(self.operations), 1)
        for weights, part, own, gradient in zip(self.operations, self._parts, grads, gradients, strict=True):
            tensors = [next(excitation) for _ in range(3)] if "se_reduce" in weights else []
            before = x[:, part]
            after = before * tensors[2][:, :, None, None] if tensors and needs_weights else before
            kernel = self._cast(weights["project"])
            if out is None:
                inner, raw, _ = pointwise_backward(own, after, kernel, needs_weight=needs_weights)
            else:
                inner = out[:, part]
                torch.mm(rows(own), kernel.flatten(1), out=rows(out)[:, part])
                raw = (rows(own).t() @ rows(after))[:, :, None, None] if needs_weights else None
            if raw is not None:
                gradient["project"] = raw
            if tensors:
                self._excite_backward(inner, before, weights, tensors, gradient if needs_weights else None)
        return inner if out is None else out

    def _joined(self, name: str) -> Tensor:
        tensors = [weights[name] for weights in self.operations]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def _share(self, gradients: Gradients, name: str, joined: Tensor) -> None:
        for gradient, part in zip(gradients, self._parts, strict=True):
            gradient[name] = joined[part]

    def _scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        return (weight * scale[:, None, None, None]).to(self._dtype)

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._dtype)


def _normalised_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of BatchNorm's input times its standard deviation, from its output x."""
    mean, scale = _standard(x)
    return batch_norm_backward(grad, x, mean, scale, [True, False, False])[0]


def _sums(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of grad x and of grad over all but the channels, (M,) each."""
    mean, scale = _standard(x)
    _, dot, total = batch_norm_backward(grad, x, mean, scale, [False, True, True])
    return dot, total


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.zeros(x.shape[1], dtype=statistics_dtype(x.dtype), device=x.device)
    return mean, torch.ones_like(mean)
