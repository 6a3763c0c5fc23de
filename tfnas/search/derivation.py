"""Deriving a network: the strongest operation of each layer, the strongest depth of each stage (Eq. 10, 11).

L searchable layers, K candidate operations, D layers of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from tfnas.space import Architecture, Layer, Space
from tfnas.space.assemble import assemble


class ChosenOperation(NamedTuple):
    """Where a searched block of a derived network stands in the supernet and in the network."""

    layer: int  # of the L searchable layers
    operation: int  # of the K candidates
    block: int  # of the architecture's blocks


@dataclass(frozen=True)
class Derived:
    """A derived network, and what was chosen."""

    architecture: Architecture
    operations: tuple[int, ...]  # strongest candidate of each of the L layers, those beyond the depth included
    depths: dict[int, int]  # of each searchable stage

    def chosen(self, space: Space) -> Iterator[ChosenOperation]:
        """The searched blocks in order."""
        block = 0
        layers = {(layer.stage, layer.position): i for i, layer in enumerate(searchable_layers(space))}
        for layer in space.layers():
            if layer.stage not in self.depths:
                block += 1
            elif layer.position <= self.depths[layer.stage]:
                index = layers[layer.stage, layer.position]
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


def depth_strength(beta: Tensor) -> Tensor:
    """Eq. 11: softmax of beta over the depths of a stage."""
    return beta.detach().softmax(-1)


def derive(
    space: Space, alphas: Tensor, betas: Sequence[Tensor], widths: Sequence[Sequence[int]], name: str
) -> Derived:
    """The strongest network at the current widths; the first of equals.

    Args:
        alphas: (L, K).
        betas: (D,) of each searchable stage, the first for depth 1.
        widths: active expansion channels, (L, K).
        name: of the architecture.
    """
    operations = [int(index) for index in operation_strength(alphas).argmax(-1)]
    depths = {
        stage.stage: 1 + int(depth_strength(beta).argmax())
        for stage, beta in zip(space.searchable_stages, betas, strict=True)
    }
    choices = {
        stage: [
            (space.candidates[operations[i]], widths[i][operations[i]])
            for i, layer in enumerate(searchable_layers(space))
            if layer.stage == stage and layer.position <= depth
        ]
        for stage, depth in depths.items()
    }
    return Derived(assemble(space, name, choices), tuple(operations), depths)
