"""Which expansion channels of an operation are worth keeping (Appendix C).

The latency of a network as a function of its widths alone, in arrays: what elasticity-scaling works on.

B blocks that the table has latencies for, i.e. those outside its fixed part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tfnas.latency import LatencyTable, OperationKey
from tfnas.space import Architecture, Space
from tfnas.space.membership import matching_candidates


def channel_importance(depthwise: Tensor) -> Tensor:
    """L1 norm of each channel's (1, k, k) depthwise kernel: (W, 1, k, k) to (W,).

    The paper says "its corresponding weight"; the depthwise kernel is the authors' choice.
    """
    return depthwise.abs().sum((1, 2, 3))


def channel_order(depthwise: Tensor, width: int) -> Tensor:
    """(W,) channels with the `width` most important ones first; both parts in the order they had."""
    ranked = channel_importance(depthwise).argsort(descending=True, stable=True)
    return torch.cat([ranked[:width].sort().values, ranked[width:].sort().values])


WidthRanges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class ScalingResult:
    """A network after elasticity-scaling."""

    architecture: Architecture
    latency_before_ms: float
    latency_after_ms: float
    reachable_ms: tuple[float, float]  # with all widths at their smallest, at their largest
    reached: bool  # latency_after_ms <= target


def width_ranges(architecture: Architecture, space: Space) -> list[tuple[int, int]]:
    """(smallest, largest) width of each block, inferred from the candidates of the space.

    Candidates e3 and e6 without squeeze-and-excitation share the width 4 C_in; a block of exactly that width
    counts as the one that stands first in the space (e3). Whoever knows the candidate, as the supernet does,
    passes its range instead. A block that is no candidate keeps its width.
    """
    searchable = {stage.stage for stage in space.searchable_stages}
    ranges = []
    for block in architecture.blocks:
        found = matching_candidates(block, space) if block.stage in searchable else []
        fixed = (block.expand_channels, block.expand_channels)
        ranges.append(found[0].width_range(block.in_channels) if found else fixed)
    return ranges


class WidthProblem:
    """The B blocks' widths and latencies as arrays.

    Attributes:
        stages, widths, low, high: (B,) integers.
        base_ms: of the table's fixed part.
    """

    def __init__(self, architecture: Architecture, table: LatencyTable, ranges: WidthRanges) -> None:
        blocks, rows, curves = [], [], []
        for i, (resolution, block) in enumerate(architecture.block_resolutions(table.resolution)):
            if block.stage not in table.fixed_stages:
                key = OperationKey.of_block(resolution, block)
                for width in ranges[i]:
                    table.operation_ms(key, width)  # raises the table's own error where it has no such width
                blocks.append(i)
                rows.append((block.stage, block.expand_channels, *ranges[i]))
                curves.append(table.curve(key))
        self.architecture, self.base_ms, self._blocks = architecture, table.base_ms, blocks
        self.stages, self.widths, self.low, self.high = np.array(rows, dtype=np.int64).T
        # latency of block b at width n: _latencies[_offsets[b] + n]
        self._latencies = np.concatenate([curve.dense_ms for curve in curves])
        self._envelope = np.concatenate([_suffix_minimum(curve.dense_ms) for curve in curves])
        starts = np.cumsum([0, *(len(curve.dense_ms) for curve in curves[:-1])])
        self._offsets = starts - np.array([curve.widths[0] for curve in curves])

    def latency_ms(self, widths: np.ndarray) -> float:
        """Exactly what the table says of the network with these (B,) widths, added up in the same order."""
        return self.base_ms + sum(self._latencies[self._offsets + widths].tolist())

    def lower_bound_ms(self, widths: np.ndarray) -> float:
        """A latency that no network with these widths or larger ones is below; monotone in the widths."""
        return float(self.base_ms + self._envelope[self._offsets + widths].sum())

    def step_ms(self, blocks: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """What each block gains in latency by its last channel: LAT(n) - LAT(n - 1)."""
        at = self._offsets[blocks] + widths
        return np.asarray(self._latencies[at] - self._latencies[at - 1])

    def clip(self, widths: np.ndarray) -> np.ndarray:
        """Widths inside their ranges."""
        return np.minimum(np.maximum(widths, self.low), self.high)

    def with_widths(self, widths: np.ndarray) -> Architecture:
        """The network with these (B,) widths."""
        blocks = list(self.architecture.blocks)
        for i, width in zip(self._blocks, widths.tolist(), strict=True):
            blocks[i] = replace(blocks[i], expand_channels=width)
        return replace(self.architecture, blocks=tuple(blocks))

    def result(self, widths: np.ndarray, target_ms: float) -> ScalingResult:
        """The outcome with these (B,) widths."""
        after_ms = self.latency_ms(widths)
        return ScalingResult(
            architecture=self.with_widths(widths),
            latency_before_ms=self.latency_ms(self.widths),
            latency_after_ms=after_ms,
            reachable_ms=(self.latency_ms(self.low), self.latency_ms(self.high)),
            reached=after_ms <= target_ms,
        )


def _suffix_minimum(values: np.ndarray) -> np.ndarray:
    """The smallest of each value and those after it."""
    return np.asarray(np.minimum.accumulate(values[::-1])[::-1])
