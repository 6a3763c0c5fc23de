"""Multiply-adds and parameters, counted from the architecture itself."""

from __future__ import annotations

from tfnas.space.architecture import Architecture, Block
from tfnas.space.space import halve


def count_macs(architecture: Architecture, resolution: int = 224, num_classes: int = 1000) -> int:
    """Multiply-adds of one image: convolutions (SE included) and the classifier.

    Biases, BatchNorm and activations are not counted (as Table 2, "FLOPs").
    """
    stem, head = architecture.stem, architecture.head
    size = halve(resolution, stem.stride)
    total = stem.kernel**2 * stem.in_channels * stem.out_channels * size**2
    for block_size, block in architecture.block_resolutions(resolution):
        total += block_macs(block, block_size)
        size = halve(block_size, block.stride)
    total += architecture.blocks[-1].out_channels * head.out_channels * size**2
    return total + head.out_channels * num_classes


def block_macs(block: Block, resolution: int) -> int:
    """Multiply-adds of one MBInvRes block at an input of `resolution`."""
    width = max(block.expand_channels, block.in_channels)
    out_size = halve(resolution, block.stride)
    expand = block.in_channels * width * resolution**2 if block.expand_channels > block.in_channels else 0
    depthwise = block.kernel**2 * width * out_size**2
    squeeze_excite = 2 * width * block.se_channels
    project = width * block.out_channels * out_size**2
    return expand + depthwise + squeeze_excite + project


def count_params(architecture: Architecture, num_classes: int = 1000) -> int:
    """Trainable parameters: convolutions, SE with biases, BatchNorm's two per channel, classifier."""
    stem, head = architecture.stem, architecture.head
    total = stem.out_channels * (stem.kernel**2 * stem.in_channels + 2)
    total += sum(block_params(block) for block in architecture.blocks)
    total += head.out_channels * (architecture.blocks[-1].out_channels + 2)
    return total + (head.out_channels + 1) * num_classes


def block_params(block: Block) -> int:
    """Trainable parameters of one MBInvRes block."""
    width = max(block.expand_channels, block.in_channels)
    expand = width * (block.in_channels + 2) if block.expand_channels > block.in_channels else 0
    depthwise = width * (block.kernel**2 + 2)
    squeeze_excite = (2 * width + 1) * block.se_channels + width if block.se_channels else 0
    project = block.out_channels * (width + 2)
    return expand + depthwise + squeeze_excite + project
