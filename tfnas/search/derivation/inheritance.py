"""What a derived network inherits from its supernet: the weights of its operations, under `build_network`'s names.

Once-for-all (Cai et al., 2020) and HardCoRe-NAS (Nayman et al., 2021) start from these, where TF-NAS trains from
scratch (Appendix B).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tfnas.search.derivation.strongest import Derived
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import build_network

# Where an MBInvRes block has each weight of a candidate operation.
BLOCK_WEIGHTS = {
    "expand": "expand.conv.weight",
    "depthwise": "depthwise.conv.weight",
    "se_reduce": "squeeze_excite.reduce.weight",
    "se_reduce_bias": "squeeze_excite.reduce.bias",
    "se_expand": "squeeze_excite.expand.weight",
    "se_expand_bias": "squeeze_excite.expand.bias",
    "project": "project.conv.weight",
}
_NEW_NORM = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}


def inherited_state(supernet: Supernet, derived: Derived) -> dict[str, Tensor]:
    """The state dict of the derived network, with the weights and widths that its operations have in the supernet.

    In training mode the network then computes what `Supernet.forward_derived` computes. (With sink-connecting, a
    sampled path gives something else, the mixture of all depths.) The supernet's BatchNorm has neither factors nor
    running statistics: the network's gets unit factors and zero biases, and as statistics the identity, which are to
    be estimated before the network is evaluated.

    Returns:
        copies on the CPU, under the names of `build_network`, for as many classes as the supernet has.
    """
    with torch.device("meta"):
        expected = build_network(derived.architecture, supernet.num_classes).state_dict()
    found = dict(_weights(supernet, derived))
    state = {}
    for name, value in expected.items():
        unit, _, kind = name.rpartition(".")
        if unit.endswith("norm"):
            state[name] = torch.full(value.shape, _NEW_NORM[kind], dtype=value.dtype)
        else:
            assert found[name].shape == value.shape, name
            state[name] = found[name].detach().cpu().clone(memory_format=torch.contiguous_format)
    assert found.keys() <= state.keys()
    return state


def _weights(supernet: Supernet, derived: Derived) -> Iterator[tuple[str, Tensor]]:
    """All weights but BatchNorm's, by the derived network's names."""
    for part in ("stem", "head"):
        yield f"{part}.conv.weight", supernet.get_parameter(f"{part}.conv.weight")
    operations, size = list(supernet.operations()), len(supernet.space.candidates)
    searched = {
        chosen.block: operations[chosen.layer * size + chosen.operation] for chosen in derived.chosen(supernet.space)
    }
    fixed = (block for stage in supernet.stages if isinstance(stage, nn.Sequential) for block in stage)
    for number in range(len(derived.architecture.blocks)):
        if number in searched:
            weights = {BLOCK_WEIGHTS[name]: weight for name, weight in searched[number].weights.items()}
        else:
            weights = next(fixed).state_dict()
        yield from ((f"blocks.{number}.{name}", weight) for name, weight in weights.items())
    for name, weight in supernet.classifier.state_dict().items():
        yield f"classifier.linear.{name}", weight
