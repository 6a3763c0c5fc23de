"""Widths: which expansion channels are worth keeping (Appendix C), and what a network costs at which widths.

B blocks outside the fixed part of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tfnas.latency import OperationKey
from tfnas.search.cost import Cost
from tfnas.space import Architecture, Space
from tfnas.space.membership import matching_candidates


def _depthwise(weights: Mapping[str, Tensor]) -> Tensor:
    return weights["depthwise"].abs().sum((1, 2, 3))


def _projection(weights: Mapping[str, Tensor]) -> Tensor:
    return weights["project"].square().sum((0, 2, 3)).sqrt()


def _product(weights: Mapping[str, Tensor]) -> Tensor:
    return _depthwise(weights) * _projection(weights)


CHANNEL_IMPORTANCE: dict[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
    "depthwise": _depthwise,
    "projection": _projection,
    "product": _product,
}


def channel_importance(weights: Mapping[str, Tensor], kind: str = "depthwise") -> Tensor:
    """How much each expansion channel of an operation matters, (W,); the paper says "its corresponding weight".

    Args:
        weights: of an operation, named as in `CandidateOperation`: depthwise (W, 1, k, k), project (C_out, W, 1, 1).
        kind: a key of `CHANNEL_IMPORTANCE`:
            `depthwise`, L1 norm of the channel's depthwise kernel, as in the authors' code. BatchNorm follows the
            depthwise convolution, so the scale of this kernel has no effect on what the operation computes;
            `projection`, L2 norm of the channel's column of the projection. After BatchNorm and activation, all
            channels have about the same mean square, so the mean squared error that dropping one leaves in the
            projection's output is proportional to the square of this norm;
            `product` of the two.
    """
    return CHANNEL_IMPORTANCE[kind](weights)


def channel_order(weights: Mapping[str, Tensor], width: int, kind: str = "depthwise") -> Tensor:
    """(W,) channels with the `width` most important ones first; both parts in the order they had.

    Args:
        weights, kind: as in `channel_importance`. The first of equally important channels is kept.
    """
    ranked = channel_importance(weights, kind).argsort(descending=True, stable=True)
    return torch.cat([ranked[:width].sort().values, ranked[width:].sort().values])


WidthRanges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class ScalingResult:
    """A network after elasticity-scaling."""

    architecture: Architecture
    cost_before: float
    cost_after: float
    reachable: tuple[float, float]  # with all widths at their smallest, at their largest
    reached: bool  # cost_after <= limit


def width_ranges(architecture: Architecture, space: Space) -> list[tuple[int, int]]:
    """(smallest, largest) width of each block, inferred from the candidates of the space.

    Candidates e3 and e6 without squeeze-and-excitation share the width 4 C_in; a block of exactly that width
    counts as the one listed first in the space (e3). Whoever knows the candidate, as the supernet does,
    passes its range instead. A block that is not a candidate keeps its width.
    """
    searchable = {stage.stage for stage in space.searchable_stages}
    ranges = []
    for block in architecture.blocks:
        found = matching_candidates(block, space) if block.stage in searchable else []
        fixed = (block.expand_channels, block.expand_channels)
        ranges.append(found[0].width_range(block.in_channels) if found else fixed)
    return ranges


class WidthProblem:
    """The cost of a network as a function of the widths of its B blocks, in arrays: what elasticity-scaling works on.

    Widths are counted in units of the space's `width_multiple`, so that every whole number is a width of the space; a
    block that keeps its width counts channels.

    Attributes:
        stages, widths, low, high: (B,) integers; the last three in units.
    """

    def __init__(self, architecture: Architecture, cost: Cost, ranges: WidthRanges, width_multiple: int = 1) -> None:
        blocks, rows, curves, units = [], [], [], []
        for i, (resolution, block) in enumerate(architecture.block_resolutions(cost.resolution)):
            if block.stage not in cost.fixed_stages:
                key = OperationKey.of_block(resolution, block)
                for width in ranges[i]:
                    cost.operation(key, width)  # raises the cost's own error where it has no such width
                low, high = ranges[i]
                unit = width_multiple if low < high else 1
                blocks.append(i)
                rows.append((block.stage, block.expand_channels // unit, -(-low // unit), high // unit))
                curves.append(_in_units(*cost.curve(key), unit))
                units.append(unit)
        self.architecture, self._base, self._blocks = architecture, cost.base, blocks
        self._units = np.array(units)
        self.stages, self.widths, self.low, self.high = np.array(rows, dtype=np.int64).T
        # cost of block b at width n: _values[_offsets[b] + n]
        self._values = np.concatenate([values for _, values in curves])
        self._envelope = np.concatenate([_suffix_minimum(values) for _, values in curves])
        starts = np.cumsum([0, *(len(values) for _, values in curves[:-1])])
        self._offsets = starts - np.array([first for first, _ in curves])

    def cost(self, widths: np.ndarray) -> float:
        """Exactly `Cost.value` of the network with these (B,) widths, added up in the same order."""
        return self._base + sum(self._values[self._offsets + widths].tolist())

    def lower_bound(self, widths: np.ndarray) -> float:
        """A cost that no network with these widths or larger ones is below; monotone in the widths."""
        return float(self._base + self._envelope[self._offsets + widths].sum())

    def step_costs(self, blocks: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """What the last channel of each block costs: LAT(n) - LAT(n - 1)."""
        at = self._offsets[blocks] + widths
        return np.asarray(self._values[at] - self._values[at - 1])

    def clip(self, widths: np.ndarray) -> np.ndarray:
        """Widths inside their ranges."""
        return np.minimum(np.maximum(widths, self.low), self.high)

    def with_widths(self, widths: np.ndarray) -> Architecture:
        """The network with these (B,) widths."""
        blocks = list(self.architecture.blocks)
        for i, width in zip(self._blocks, (widths * self._units).tolist(), strict=True):
            blocks[i] = replace(blocks[i], expand_channels=width)
        return replace(self.architecture, blocks=tuple(blocks))

    def result(self, widths: np.ndarray, limit: float) -> ScalingResult:
        """The outcome with these (B,) widths."""
        after = self.cost(widths)
        return ScalingResult(
            architecture=self.with_widths(widths),
            cost_before=self.cost(self.widths),
            cost_after=after,
            reachable=(self.cost(self.low), self.cost(self.high)),
            reached=after <= limit,
        )


def _in_units(first: int, values: np.ndarray, unit: int) -> tuple[int, np.ndarray]:
    """A curve of a cost at every unit-th width: its first width in units, and its values from there on."""
    least = -(-first // unit)
    return least, values[least * unit - first :: unit]


def _suffix_minimum(values: np.ndarray) -> np.ndarray:
    """The smallest of each value and those after it."""
    return np.asarray(np.minimum.accumulate(values[::-1])[::-1])
