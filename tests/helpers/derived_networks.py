"""Derived networks and blocks with the weights of the supernet they came from."""

from __future__ import annotations

import torch
from torch import nn

from tfnas.space import Block
from tfnas.space.network import MBInvRes


@torch.no_grad()
def copy_shared_weights(supernet, network, derived, block_parameters) -> None:
    """From the tiny space's supernet; `block_parameters` maps names of an operation's weights to a block's."""
    for part in ("stem", "head"):
        getattr(network, part).conv.weight.copy_(getattr(supernet, part).conv.weight)
    network.classifier.linear.load_state_dict(supernet.classifier.state_dict())
    network.blocks[0].load_state_dict(supernet.stages[0][0].state_dict(), strict=False)
    operations = list(supernet.operations())
    for layer, candidate, block in derived.chosen(supernet.space):
        for name, weight in operations[4 * layer + candidate].weights.items():
            network.blocks[block].get_parameter(block_parameters[name]).copy_(weight)


def derived_block(operation, candidate, block_parameters):
    """The derived network's block with the operation's active weights, its BatchNorm without learned factors."""
    layer = operation.layer
    se_channels = candidate.se_channels(layer.in_channels)
    block = MBInvRes(
        Block(
            candidate.kernel,
            layer.in_channels,
            operation.width,
            se_channels,
            layer.out_channels,
            layer.act,
            layer.stride,
        )
    )
    for unit in (block.expand, block.depthwise, block.project):
        unit.norm = nn.BatchNorm2d(unit.norm.num_features, affine=False)
    with torch.no_grad():
        for name, weight in operation.weights.items():
            parameter = block.get_parameter(block_parameters[name])
            assert parameter.shape == weight.shape
            parameter.copy_(weight)
    return block.to(weight.dtype).train()
