"""The projections of operations that share one depthwise output and, part by part, one projection weight.

An operation projects the first w channels of y, after squeeze-and-excitation where it has one: p = P (f y), with P
(C_out, w) the first columns of the shared weight and f (N, w) its factors. So

- operations without squeeze-and-excitation are partial sums, one step from each width to the next;
- P (f y) = (P diag f) y, a matrix for each image, where that costs less than a product of f and y.

N batch, H W size of the output, P = N H W, W computed channels of y, w those of an operation, s its channels of
squeeze-and-excitation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tfnas.search.fused.kernels import Activation, Excited, maps, rows

# A matrix for each image pays where the output has at most this many channels and fewer channels than pixels (measured:
# with more, products of matrices cost more than products of maps, and sooner in float32 than in 16 bits).
CHANNELS_PER_IMAGE_MATRIX = {torch.float32: 64, torch.bfloat16: 128}

Bank = Mapping[str, Tensor]


class Operation(NamedTuple):
    """Which part of the bank an operation computes with."""

    index: int  # among the layer's operations
    width: int
    se_channels: int  # 0: no squeeze-and-excitation


class Projections:
    """The projections of all operations with one kernel size, and what is before them.

    Args:
        bank: the layer's weights at full size.
        operations: from the narrowest to the widest.
    """

    def __init__(self, bank: Bank, operations: Sequence[Operation], act: Activation, dtype: torch.dtype) -> None:
        self._bank, self._operations, self._act = bank, operations, act
        self._matrix = bank["project"].flatten(1).to(dtype)  # (C_out, W)
        self._plain = [operation for operation in operations if not operation.se_channels]
        self.excites = len(self._plain) < len(operations)

    def excite(self, y: Tensor) -> list[Excited | None]:
        """Factors of squeeze-and-excitation, for the operations that have one; y is (N, W, H, W)."""
        if not self.excites:
            return [None] * len(self._operations)
        means = y.mean((2, 3))
        return [self._excited(means[:, : one.width], one) if one.se_channels else None for one in self._operations]

    def _excited(self, means: Tensor, operation: Operation) -> Excited:
        first, second = self._squeeze(operation, means.dtype)
        biases = (
            self._bank["se_reduce_bias"][: operation.se_channels],
            self._bank["se_expand_bias"][: operation.width],
        )
        reduced = torch.addmm(biases[0].to(means.dtype), means, first.t())
        factors = torch.addmm(biases[1].to(means.dtype), self._act.forward(reduced), second.t()).sigmoid_()
        return Excited(means, reduced, factors)

    def _squeeze(self, operation: Operation, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(s, w) and (w, s)."""
        _, width, channels = operation
        first = self._bank["se_reduce"][:channels, :width].flatten(1)
        return first.to(dtype), self._bank["se_expand"][:width, :channels].flatten(1).to(dtype)

    def forward(self, y: Tensor, excited: Sequence[Excited | None]) -> list[Tensor]:
        """(N, C_out, H, W) of each operation."""
        found, reached, below = [], 0, None
        for operation, kept in zip(self._operations, excited, strict=True):
            width = operation.width
            if kept is not None:
                found.append(self._project_excited(y, kept.factors))
                continue
            if width > reached:
                part, matrix = rows(y)[:, reached:width], self._matrix[:, reached:width].t()
                below = torch.mm(part, matrix) if below is None else torch.addmm(below, part, matrix)
                reached = width
            assert below is not None
            found.append(maps(below, like=y))
        return found

    def _project_excited(self, y: Tensor, factors: Tensor) -> Tensor:
        width = factors.shape[1]
        matrix = self._matrix[:, :width].t()
        if self._per_image(y):
            out = torch.bmm(_images(y)[..., :width], matrix * factors.unsqueeze(2))
            return maps(out.flatten(0, 1), like=y)
        return maps(rows(y[:, :width] * factors[:, :, None, None]) @ matrix, like=y)

    def _per_image(self, y: Tensor) -> bool:
        channels = len(self._matrix)
        return channels <= min(CHANNELS_PER_IMAGE_MATRIX.get(y.dtype, 64), y.shape[2] * y.shape[3])

    def backward(
        self, grads: Sequence[Tensor], y: Tensor, excited: Sequence[Excited | None], bank_grad: dict[str, Tensor]
    ) -> Tensor:
        """Gradient of y from those of the outputs, (N, C_out, H, W) each; adds those of the bank.

        Args:
            y: only its shape counts where nothing needs its values.
            bank_grad: empty if the bank needs none.
        """
        out = torch.empty_like(y)
        if bank_grad:
            self._plain_weight_backward(grads, y, bank_grad)
        if self.excites and self._per_image(y):
            means = self._excited_matrices_backward(grads, y, excited, bank_grad)
            self._input_backward(grads, out, excited)
        else:
            self._input_backward(grads, out, [None] * len(excited))
            means = self._excited_maps_backward(grads, y, out, excited, bank_grad)
        if means is not None:
            out[:, : means.shape[1]].add_(means[:, :, None, None])
        return out

    def _segments(self, grads: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor | None]]:
        """The channels between one width and the next, and the gradients (P, C_out) of all plain sums that they are in.

        From the widest to the narrowest.
        """
        widths = sorted({0, *(operation.width for operation in self._operations)})
        total = None
        for low, high in reversed(list(itertools.pairwise(widths))):
            for operation, grad in zip(self._operations, grads, strict=True):
                if operation.width == high and not operation.se_channels:
                    total = rows(grad) if total is None else total + rows(grad)
            yield slice(low, high), total

    def _plain_weight_backward(self, grads: Sequence[Tensor], y: Tensor, bank_grad: dict[str, Tensor]) -> None:
        for part, total in self._segments(grads):
            if total is not None:
                bank_grad["project"][:, part, 0, 0] += total.t() @ rows(y)[:, part]

    def _input_backward(self, grads: Sequence[Tensor], out: Tensor, excited: Sequence[Excited | None]) -> None:
        """Write the gradients of y: of all operations whose factors are given, and of the plain ones."""
        for part, total in self._segments(grads):
            columns = [] if total is None else [total.view(len(out), -1, total.shape[1])]
            matrix = self._matrix[:, part]
            matrices = [] if total is None else [matrix.expand(len(out), -1, -1)]
            for grad, kept in zip(grads, excited, strict=True):
                if kept is not None and kept.factors.shape[1] >= part.stop:
                    columns.append(_images(grad))
                    matrices.append(matrix * kept.factors[:, None, part])
            if len(matrices) > 1 or (matrices and total is None):
                torch.bmm(torch.cat(columns, 2), torch.cat(matrices, 1), out=_images(out)[..., part])
            elif total is not None:
                torch.mm(total, matrix, out=rows(out)[:, part])
            else:
                out[:, part].zero_()
        out[:, self._operations[-1].width :].zero_()

    def _excited_matrices_backward(
        self, grads: Sequence[Tensor], y: Tensor, excited: Sequence[Excited | None], bank_grad: dict[str, Tensor]
    ) -> Tensor | None:
        """What goes through the factors, from the gradients of each image's matrix; those of the means of y."""
        means = None
        for operation, grad, kept in zip(self._operations, grads, excited, strict=True):
            if kept is None:
                continue
            width = operation.width
            inner = torch.bmm(_images(grad).transpose(1, 2), _images(y)[..., :width])  # (N, C_out, w)
            if bank_grad:
                bank_grad["project"][:, :width, 0, 0] += (inner * kept.factors.unsqueeze(1)).sum(0)
            factors_grad = (inner * self._matrix[:, :width]).sum(1)
            means = _widened(means, self._excited_backward(factors_grad, operation, kept, y, bank_grad))
        return means

    def _excited_maps_backward(
        self,
        grads: Sequence[Tensor],
        y: Tensor,
        out: Tensor,
        excited: Sequence[Excited | None],
        bank_grad: dict[str, Tensor],
    ) -> Tensor | None:
        """The same from the gradients of products with the factors, which are added to `out`."""
        means = None
        for operation, grad, kept in zip(self._operations, grads, excited, strict=True):
            if kept is None:
                continue
            width, factors = operation.width, kept.factors[:, :, None, None]
            inner, before = maps(rows(grad) @ self._matrix[:, :width], like=y), y[:, :width]
            if bank_grad:
                bank_grad["project"][:, :width, 0, 0] += rows(grad).t() @ rows(before * factors)
            factors_grad = (inner * before).sum((2, 3))
            out[:, :width].addcmul_(inner, factors)
            means = _widened(means, self._excited_backward(factors_grad, operation, kept, y, bank_grad))
        return means

    def _excited_backward(
        self, grad: Tensor, operation: Operation, kept: Excited, y: Tensor, bank_grad: dict[str, Tensor]
    ) -> Tensor:
        """Gradient of what each pixel adds to the means of y (N, w), from that of the factors."""
        first, second = self._squeeze(operation, y.dtype)
        _, width, channels = operation
        inner = torch.ops.aten.sigmoid_backward(grad, kept.factors)
        outer = self._act.backward_inplace(inner @ second, kept.reduced)
        if bank_grad:
            bank_grad["se_reduce"][:channels, :width, 0, 0] += outer.t() @ kept.pooled
            bank_grad["se_reduce_bias"][:channels] += outer.sum(0)
            bank_grad["se_expand"][:width, :channels, 0, 0] += inner.t() @ self._act.forward(kept.reduced)
            bank_grad["se_expand_bias"][:width] += inner.sum(0)
        return torch.addmm(kept.pooled, outer, first, beta=0, alpha=1 / (y.shape[2] * y.shape[3]))


def _images(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H W, C), without a copy from channels_last memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _widened(total: Tensor | None, wider: Tensor) -> Tensor:
    """The sum of (N, w) and (N, w') with w <= w', zeros beyond w."""
    if total is not None:
        wider[:, : total.shape[1]] += total
    return wider
