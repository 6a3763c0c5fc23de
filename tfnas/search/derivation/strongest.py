"""Deriving a network: the strongest operation of each layer, the strongest depth of each stage (Eq. 10, 11).

L searchable layers, K candidate operations, D layers of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from torch import Tensor

from tfnas.search.supernet.depth_spaces import DEPTH_SPACES, candidate_mask, operation_logits
from tfnas.space import Architecture, Layer, Space
from tfnas.space.membership import assemble


class ChosenOperation(NamedTuple):
    """Where a searched block of a derived network is in the supernet and in the network."""

    layer: int  # of the L searchable layers
    operation: int  # of the K candidates
    block: int  # of the architecture's blocks


@dataclass(frozen=True)
class Derived:
    """A derived network, and what was chosen."""

    architecture: Architecture
    operations: tuple[int, ...]  # strongest of each of the L layers, those beyond the depth included; K for skip
    kept: tuple[bool, ...]  # which of the L layers the network has
    depths: dict[int, int]  # of each searchable stage

    def chosen(self, space: Space) -> Iterator[ChosenOperation]:
        """The searched blocks in order."""
        block = 0
        layers = {(layer.stage, layer.position): i for i, layer in enumerate(searchable_layers(space))}
        for layer in space.layers():
            index = layers.get((layer.stage, layer.position))
            if index is None:
                block += 1
            elif self.kept[index]:
                yield ChosenOperation(index, self.operations[index], block)
                block += 1

    def width_ranges(self, space: Space) -> list[tuple[int, int]]:
        """(smallest, largest) width of each block; a fixed block has its one width."""
        blocks = self.architecture.blocks
        ranges = [(block.expand_channels, block.expand_channels) for block in blocks]
        for chosen in self.chosen(space):
            ranges[chosen.block] = space.candidates[chosen.operation].width_range(blocks[chosen.block].in_channels)
        return ranges


def searchable_layers(space: Space, resolution: int | None = None) -> list[Layer]:
    """The L searchable layers of the deepest network, in order."""
    stages = {stage.stage for stage in space.searchable_stages}
    return [layer for layer in space.layers(resolution) if layer.stage in stages]


def operation_strength(alphas: Tensor) -> Tensor:
    """Eq. 10: softmax of alpha over the candidates of a layer."""
    return alphas.detach().softmax(-1)


def derive(
    space: Space,
    alphas: Tensor,
    betas: Sequence[Tensor],
    widths: Sequence[Sequence[int]],
    name: str,
    depth_space: str = "sink",
) -> Derived:
    """The strongest network at the current widths (Eq. 10, 11); the first of equals.

    Args:
        alphas: (L, K), or (L, K + 1) with skip among the candidates.
        betas: of each searchable stage, (D,), the first for depth 1; of another shape where depths are
            not chosen by sink-connecting.
        widths: active expansion channels, (L, K).
        name: of the architecture.
        depth_space: a key of `DEPTH_SPACES`.
    """
    logits = operation_logits(alphas.detach(), candidate_mask(space, depth_space))
    operations = [int(index) for index in operation_strength(logits).argmax(-1)]
    kept: list[bool] = []
    kind, skip = DEPTH_SPACES[depth_space], len(space.candidates)
    for beta, (first, end) in zip(betas, stage_slices(space), strict=True):
        kept += kind.kept(operations[first:end], beta, skip)
    if kind.may_skip:
        operations = [operation if kept[i] else skip for i, operation in enumerate(operations)]
    return derived_network(space, operations, kept, widths, name)


def derived_network(
    space: Space, operations: Sequence[int], kept: Sequence[bool], widths: Sequence[Sequence[int]], name: str
) -> Derived:
    """The network of these choices.

    Args:
        operations: of each of the L layers; K for skip.
        kept: which of the L layers the network has.
        widths: active expansion channels, (L, K).
        name: of the architecture.
    """
    choices, depths = {}, {}
    for stage, (first, end) in zip(space.searchable_stages, stage_slices(space), strict=True):
        layers = [i for i in range(first, end) if kept[i]]
        choices[stage.stage] = [(space.candidates[operations[i]], widths[i][operations[i]]) for i in layers]
        depths[stage.stage] = len(layers)
    return Derived(assemble(space, name, choices), tuple(operations), tuple(kept), depths)


def stage_slices(space: Space) -> list[tuple[int, int]]:
    """Where the layers of each searchable stage are among the L: the first, and one after the last."""
    return list(pairwise(accumulate((stage.max_depth for stage in space.searchable_stages), initial=0)))
