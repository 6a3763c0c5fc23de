"""What is measured: blocks, the fixed parts, whole networks."""

from __future__ import annotations

import copy
from functools import partial

from torch import nn

from tfnas.latency.rounds import Probe
from tfnas.latency.table import OperationKey
from tfnas.space import Architecture, Block, Space, build_network
from tfnas.space.assemble import assemble
from tfnas.space.blocks import MBInvRes
from tfnas.space.space import halve


def block_probe(key: OperationKey, width: int, batch_size: int) -> Probe:
    """One MBInvRes block; where stride and channels allow, its residual is part of it."""
    block = Block(key.kernel, key.in_channels, width, key.se_channels, key.out_channels, key.act, key.stride)
    return Probe(partial(MBInvRes, block), (batch_size, key.in_channels, key.resolution, key.resolution))


def network_probe(architecture: Architecture, resolution: int, num_classes: int, batch_size: int) -> Probe:
    """A whole network."""
    shape = (batch_size, architecture.stem.in_channels, resolution, resolution)
    return Probe(partial(build_network, architecture, num_classes), shape)


def fixed_parts(space: Space, resolution: int, num_classes: int, batch_size: int) -> dict[str, Probe]:
    """What every network of the space has: stem, fixed blocks, 1x1 convolution, pooling with classifier.

    The authors' code sums the same parts as `base`.
    """
    fixed = {stage.stage for stage in space.stages if stage.fixed is not None}
    candidate = space.candidates[0]
    choices = {stage.stage: [(candidate, candidate.width_range(stage.in_channels)[0])] for stage in space.stages}
    smallest = assemble(space, "smallest", choices)
    network = build_network(smallest, num_classes)
    parts: dict[str, Probe] = {}

    def add(name: str, module: nn.Module, channels: int, size: int) -> None:
        parts[name] = Probe(partial(copy.deepcopy, module), (batch_size, channels, size, size))

    add("stem", network.get_submodule("stem"), space.stem.in_channels, resolution)
    size = halve(resolution, space.stem.stride)
    for index, (size, block) in enumerate(smallest.block_resolutions(resolution)):
        if block.stage in fixed:
            add(f"block {index}", network.get_submodule(f"blocks.{index}"), block.in_channels, size)
    last = smallest.blocks[-1]
    add("head", network.get_submodule("head"), last.out_channels, halve(size, last.stride))
    end = nn.Sequential(network.get_submodule("pool"), nn.Flatten(1), network.get_submodule("classifier"))
    add("classifier", end, space.head.out_channels, halve(size, last.stride))
    return parts
