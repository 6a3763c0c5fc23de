"""A derived network with the weights of the supernet it came from."""

from __future__ import annotations

import torch


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
