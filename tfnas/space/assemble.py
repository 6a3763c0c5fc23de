"""From choices in a search space to an architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfnas.space.architecture import Architecture, Block
from tfnas.space.space import Candidate, FixedOperation, Layer, Space

Choice = tuple[Candidate, int]  # an operation and its width in expansion channels


def assemble(space: Space, name: str, choices: Mapping[int, Sequence[Choice]]) -> Architecture:
    """The network whose stage `s` has the layers `choices[s]`, in order; fixed stages need no entry."""
    blocks = []
    for layer in space.layers():
        stage = next(stage for stage in space.stages if stage.stage == layer.stage)
        if stage.fixed is not None:
            blocks.append(_fixed_block(layer, stage.fixed))
        elif layer.position <= len(choices[layer.stage]):
            candidate, width = choices[layer.stage][layer.position - 1]
            blocks.append(_chosen_block(layer, candidate, width))
    return Architecture(name, space.name, space.stem, tuple(blocks), space.head)


def _fixed_block(layer: Layer, operation: FixedOperation) -> Block:
    width, se_channels = operation.width(layer.in_channels), operation.se_channels(layer.in_channels)
    return _block(layer, operation.kernel, width, se_channels)


def _chosen_block(layer: Layer, candidate: Candidate, width: int) -> Block:
    return _block(layer, candidate.kernel, width, candidate.se_channels(layer.in_channels))


def _block(layer: Layer, kernel: int, width: int, se_channels: int) -> Block:
    return Block(
        kernel, layer.in_channels, width, se_channels, layer.out_channels, layer.act, layer.stride, layer.stage
    )
