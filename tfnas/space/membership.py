"""Networks and a space: whether one lies inside it, and the one that choices in it make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tfnas.space.architecture import Architecture, Block
from tfnas.space.space import Candidate, FixedOperation, Layer, Space, StageSpec


def violations(architecture: Architecture, space: Space) -> Iterator[str]:
    """Every reason why the network is not one of the space's, one line each; nothing for a member."""
    if architecture.stem != space.stem:
        yield f"stem is {architecture.stem}, the space has {space.stem}"
    if architecture.head != space.head:
        yield f"head is {architecture.head}, the space has {space.head}"
    stages = [block.stage for block in architecture.blocks]
    if sorted(stages) != stages or not set(stages) <= {spec.stage for spec in space.stages}:
        yield f"stages are {stages}, the space has {[spec.stage for spec in space.stages]} in this order"
    for spec in space.stages:
        blocks = [block for block in architecture.blocks if block.stage == spec.stage]
        if not spec.min_depth <= len(blocks) <= spec.max_depth:
            yield f"stage {spec.stage} has {len(blocks)} layers, the space {spec.min_depth} to {spec.max_depth}"
        for position, block in enumerate(blocks, start=1):
            yield from _block_violations(block, position, spec, space)


def matching_candidates(block: Block, space: Space) -> list[Candidate]:
    """The candidate operations that the block can be: kernel, SE and width in range."""
    return [candidate for candidate in space.candidates if _is_candidate(block, candidate)]


def _block_violations(block: Block, position: int, spec: StageSpec, space: Space) -> Iterator[str]:
    where = f"stage {spec.stage}, layer {position}"
    expected = (
        spec.in_channels if position == 1 else spec.out_channels,
        spec.out_channels,
        spec.act,
        spec.stride if position == 1 else 1,
    )
    found = (block.in_channels, block.out_channels, block.act, block.stride)
    if found != expected:
        yield f"{where}: in_channels, out_channels, act, stride are {found}, the space has {expected}"
    if spec.fixed is not None:
        operation = spec.fixed
        fixed = (operation.kernel, operation.width(block.in_channels), operation.se_channels(block.in_channels))
        if (block.kernel, block.expand_channels, block.se_channels) != fixed:
            yield f"{where}: is not the fixed operation with kernel, expand_channels, se_channels {fixed}"
    elif not matching_candidates(block, space):
        yield (
            f"{where}: no candidate has kernel {block.kernel}, se_channels {block.se_channels} and"
            f" expand_channels {block.expand_channels} at {block.in_channels} input channels"
        )


def _is_candidate(block: Block, candidate: Candidate) -> bool:
    return (
        block.kernel == candidate.kernel
        and block.se_channels == candidate.se_channels(block.in_channels)
        and block.expand_channels in candidate.widths(block.in_channels)
    )


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


def fixed_blocks(space: Space) -> tuple[Block, ...]:
    """The blocks that every network of the space has, in order."""
    return assemble(space, "fixed", {stage.stage: () for stage in space.searchable_stages}).blocks


def _fixed_block(layer: Layer, operation: FixedOperation) -> Block:
    width, se_channels = operation.width(layer.in_channels), operation.se_channels(layer.in_channels)
    return _block(layer, operation.kernel, width, se_channels)


def _chosen_block(layer: Layer, candidate: Candidate, width: int) -> Block:
    return _block(layer, candidate.kernel, width, candidate.se_channels(layer.in_channels))


def _block(layer: Layer, kernel: int, width: int, se_channels: int) -> Block:
    return Block(
        kernel, layer.in_channels, width, se_channels, layer.out_channels, layer.act, layer.stride, layer.stage
    )
