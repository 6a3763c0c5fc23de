"""Weight entanglement: a layer whose operations share one set of weights (`search.weight_sharing: entangled`).

Sukthanker et al., Weight-Entanglement Meets Gradient-Based Neural Architecture Search (arXiv 2312.10440); kernels and
widths are nested as in once-for-all (Cai et al., 2020) and AutoFormer (Chen et al., 2021). In the paper's supernet
(`MixedOp`) each operation has its own weights: a step trains one in K, and all have to fit each other's features.

The layer's bank has one tensor of each kind, at the size of the largest candidate: W expansion channels, kernel k_max,
S squeeze-and-excitation channels. An operation with kernel k, width w and s squeeze-and-excitation channels computes
with the first w channels, the central k x k of the depthwise kernels, and the first s channels in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tfnas.compute import distributed
from tfnas.search.fused import fused_entangled_sum
from tfnas.search.scaling.widths import channel_importance
from tfnas.search.supernet.mixed_op import CHANNEL_AXIS, SearchableLayer, initial_weights, largest_width
from tfnas.space import Candidate, Layer


class Share(NamedTuple):
    """The part of a bank that an operation computes with."""

    kernel: int
    width: int
    se_channels: int  # 0: no squeeze-and-excitation


def entangled_weights(bank: Mapping[str, Tensor], kernel: int, width: int, se_channels: int) -> dict[str, Tensor]:
    """An operation's weights as views of the bank, named and shaped as `plain_block` takes them.

    Args:
        bank: expand (W, C_in, 1, 1), depthwise (W, 1, k_max, k_max), project (C_out, W, 1, 1); where a candidate has
            squeeze-and-excitation also se_reduce (S, W, 1, 1), se_reduce_bias (S,), se_expand (W, S, 1, 1) and
            se_expand_bias (W,).
        kernel, width, se_channels: k <= k_max, odd as it is; w <= W; s <= S, 0 for none.
    """
    margin = (bank["depthwise"].shape[-1] - kernel) // 2
    centre = slice(margin, margin + kernel)
    weights = {"expand": bank["expand"][:width], "depthwise": bank["depthwise"][:width, :, centre, centre]}
    if se_channels:
        weights |= {
            "se_reduce": bank["se_reduce"][:se_channels, :width],
            "se_reduce_bias": bank["se_reduce_bias"][:se_channels],
            "se_expand": bank["se_expand"][:width, :se_channels],
            "se_expand_bias": bank["se_expand_bias"][:width],
        }
    weights["project"] = bank["project"][:, :width]
    return weights


class EntangledOperation:
    """One of a layer's operations: a part of its bank (`mixed_op.Operation`)."""

    def __init__(self, owner: EntangledOp, candidate: Candidate) -> None:
        self.layer, self.name, self._owner = owner.layer, candidate.name, owner
        in_channels = owner.layer.in_channels
        self.max_width = largest_width(owner.layer, candidate)
        self.width = candidate.initial_width(in_channels)
        self._kernel, self._se_channels = candidate.kernel, candidate.se_channels(in_channels)

    @property
    def share(self) -> Share:
        return Share(self._kernel, self.width, self._se_channels)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Views of the bank, through which gradients reach it."""
        return entangled_weights(self._owner.bank, *self.share)

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The whole bank: a new width moves the channels of all operations."""
        return self._owner.bank

    def set_width(self, width: int, importance: str = "depthwise") -> Tensor | None:
        """Reorder the bank, the most important of all W channels first, and compute with the first `width`.

        So every width of every operation is made of the most important channels.

        Args, Returns: as in `mixed_op.Operation`.
        """
        assert 1 <= width <= self.max_width
        if width == self.width:
            return None
        self.width = width
        return self._owner.reorder(importance)

    def restore_width(self, width: int) -> None:
        """Compute with the first `width` channels, as in a saved state."""
        self.width = width

    def moved(self, name: str, values: Tensor, before: int, order: Tensor) -> Tensor:
        """Momentum moves with its channel, whether it is active or not."""
        axis = CHANNEL_AXIS[name]
        return values if axis is None else values.index_select(axis, order)


class EntangledOp(SearchableLayer):
    """A layer whose K operations share one bank of weights; the counterpart of `MixedOp`.

    A step trains the part of the bank that the sampled operations compute with. Weight decay and momentum act on the
    whole of each tensor that they use, dropped channels included, because the optimizer knows tensors only. (With
    `MixedOp`, dropped channels stay exactly as they were until they come back.)
    """

    def __init__(self, layer: Layer, candidates: Sequence[Candidate]) -> None:
        super().__init__(layer)
        self._operations = [EntangledOperation(self, candidate) for candidate in candidates]
        width = max(operation.max_width for operation in self._operations)
        kernel = max(candidate.kernel for candidate in candidates)
        se_channels = max(candidate.se_channels(layer.in_channels) for candidate in candidates)
        for name, tensor in initial_weights(layer, width, kernel, se_channels).items():
            self.register_parameter(name, nn.Parameter(tensor))

    @property
    def bank(self) -> dict[str, Tensor]:
        """The tensors that the operations share, by name."""
        return dict(self.named_parameters())

    def all_operations(self) -> list[EntangledOperation]:
        return self._operations

    def operation(self, index: int) -> EntangledOperation:
        return self._operations[index]

    def leaves(self) -> list[Tensor]:
        """The bank."""
        return list(self.bank.values())

    def forward_mixed(self, x: Tensor, weights: Tensor, *, recompute: bool = False) -> Tensor:
        """As in `SearchableLayer`; a single process computes once what the operations have in common."""
        if distributed.is_active():
            return super().forward_mixed(x, weights, recompute=recompute)
        shares = [operation.share for operation in self._operations]
        return fused_entangled_sum(x, self.bank, shares, weights, self.layer, recompute=recompute)

    @torch.no_grad()
    def reorder(self, importance: str) -> Tensor:
        """Put the most important channels first; no operation of full width W computes anything else.

        Args:
            importance: a key of `CHANNEL_IMPORTANCE`.

        Returns:
            (W,) where each channel was before; equally important ones stay in the order that they had.
        """
        bank = self.bank
        order = channel_importance(bank, importance).argsort(descending=True, stable=True)
        for name, tensor in bank.items():
            axis = CHANNEL_AXIS[name]
            if axis is not None:
                tensor.copy_(tensor.index_select(axis, order))
        return order
