"""The projections of operations that share one depthwise output and, part by part, one projection weight.

An operation projects the first w channels of y, after squeeze-and-excitation where it has one: p = P (f y), with P
(C_out, w) the first columns of the shared weight and f (N, w) its factors. So

- operations without squeeze-and-excitation are partial sums, one step from each width to the next;
- P (f y) = (P diag f) y, one matrix for each image, where that is less than a product of f and y. Backward, products
  with maps always cost less (measured): the gradient of f as that of matrices takes one matrix product more.

N batch, H W size of the output, P = N H W, W computed channels of y, w those of an operation, s its channels of
squeeze-and-excitation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tfnas.search.fused.kernels import Activation, Excited, maps, rows

# A matrix for each image pays where the output has at least so many pixels for each of its channels (measured).
PIXELS_PER_CHANNEL = 1

Bank = Mapping[str, Tensor]


class Operation(NamedTuple):
    """Which part of the bank an operation computes with."""

    place: int  # among the layer's operations
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
        self.excites = any(operation.se_channels for operation in operations)

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
        if y.shape[2] * y.shape[3] >= PIXELS_PER_CHANNEL * len(matrix.t()):
            out = torch.bmm(_images(y)[..., :width], matrix * factors.unsqueeze(2))
            return maps(out.flatten(0, 1), like=y)
        return maps(rows(y[:, :width] * factors[:, :, None, None]) @ matrix, like=y)

    def backward(
        self, grads: Sequence[Tensor], y: Tensor, excited: Sequence[Excited | None], bank_grad: dict[str, Tensor]
    ) -> Tensor:
        """Gradient of y from those of the outputs, (N, C_out, H, W) each; adds those of the bank.

        Args:
            y: only its shape counts where nothing needs its values.
            bank_grad: empty if the bank needs none.
        """
        out, means = torch.empty_like(y), None
        self._plain_backward(grads, y, out, bank_grad)
        for operation, grad, kept in zip(self._operations, grads, excited, strict=True):
            if kept is not None:
                through = self._excited_backward(grad, operation, kept, y, out, bank_grad)
                means = through if means is None else _widened(means, through)
        if means is not None:
            out[:, : means.shape[1]].add_(means[:, :, None, None])
        return out

    def _plain_backward(self, grads: Sequence[Tensor], y: Tensor, out: Tensor, bank_grad: dict[str, Tensor]) -> None:
        """Write the gradient of y, as far as operations without squeeze-and-excitation have one.

        The channels between one width and the next are in all operations from there on: from the widest down, the
        gradients of the outputs add up.
        """
        plain = [(one, grad) for one, grad in zip(self._operations, grads, strict=True) if not one.se_channels]
        widths, total = [0, *(operation.width for operation, _ in plain)], None
        out[:, widths[-1] :].zero_()
        for below, (operation, grad) in zip(reversed(widths[:-1]), reversed(plain), strict=True):
            total = rows(grad) if total is None else total + rows(grad)
            part = slice(below, operation.width)
            if below == operation.width:
                continue
            torch.mm(total, self._matrix[:, part], out=rows(out)[:, part])
            if bank_grad:
                bank_grad["project"][:, part, 0, 0] += total.t() @ rows(y)[:, part]

    def _excited_backward(
        self,
        grad: Tensor,
        operation: Operation,
        kept: Excited,
        y: Tensor,
        out: Tensor,
        bank_grad: dict[str, Tensor],
    ) -> Tensor:
        """Add the gradient of y through the product with the factors to `out`; returns what goes through the means.

        That is a gradient of each pixel, (N, w).
        """
        _, width, channels = operation
        first, second = self._squeeze(operation, y.dtype)
        product, before = maps(rows(grad) @ self._matrix[:, :width], like=y), y[:, :width]
        factors = kept.factors[:, :, None, None]
        inner = torch.ops.aten.sigmoid_backward((product * before).sum((2, 3)), kept.factors)
        outer = self._act.backward_inplace(inner @ second, kept.reduced)
        out[:, :width].addcmul_(product, factors)
        if bank_grad:
            bank_grad["project"][:, :width, 0, 0] += rows(grad).t() @ rows(before * factors)
            bank_grad["se_reduce"][:channels, :width, 0, 0] += outer.t() @ kept.pooled
            bank_grad["se_reduce_bias"][:channels] += outer.sum(0)
            bank_grad["se_expand"][:width, :channels, 0, 0] += inner.t() @ self._act.forward(kept.reduced)
            bank_grad["se_expand_bias"][:width] += inner.sum(0)
        return torch.addmm(kept.pooled, outer, first, beta=0, alpha=1 / (y.shape[2] * y.shape[3]))


def _images(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H W, C), without a copy from channels_last memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _widened(total: Tensor, wider: Tensor) -> Tensor:
    """The sum of (N, w) and (N, w') with w <= w', zeros beyond w."""
    wider[:, : total.shape[1]] += total
    return wider
