"""What a derived network inherits from its supernet: in training mode it computes what the supernet computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tfnas.search.derivation.inheritance import inherited_state
from tfnas.search.supernet.depth_spaces import DEPTH_SPACES
from tfnas.search.supernet.supernet import WEIGHT_SHARING, Supernet
from tfnas.space import build_network

BOTH = pytest.mark.parametrize("sharing", sorted(WEIGHT_SHARING))
ALL = pytest.mark.parametrize("depth_space", sorted(DEPTH_SPACES))


@pytest.fixture
def make_supernet(tiny_space):
    def make(depth_space: str, sharing: str, seed: int = 0) -> Supernet:
        """With random weights, biases, widths, alpha and beta, in double precision."""
        torch.manual_seed(seed)
        supernet = Supernet(tiny_space, 3, depth_space, sharing).double()
        with torch.no_grad():
            for leaf in supernet.weight_parameters():
                leaf.copy_(torch.randn_like(leaf) / 4)
            for parameter in supernet.architecture_parameters():
                parameter.copy_(torch.randn_like(parameter))
            for operation in supernet.operations():
                operation.set_width(int(torch.randint(operation.max_width // 2, operation.max_width + 1, ())))
        return supernet

    return make


def inherit(supernet: Supernet) -> tuple[nn.Module, object]:
    derived = supernet.derive("found")
    network = build_network(derived.architecture, supernet.num_classes).double()
    network.load_state_dict(inherited_state(supernet, derived))
    return network.train(), derived


@BOTH
@ALL
@torch.no_grad()
def test_the_network_computes_what_it_computes_in_the_supernet(make_supernet, depth_space, sharing) -> None:
    x = torch.randn(4, 3, 16, 16, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    depths = set()
    for seed in range(4):
        supernet = make_supernet(depth_space, sharing, seed)
        network, derived = inherit(supernet)
        depths.add(tuple(derived.depths.values()))
        torch.testing.assert_close(network(x), supernet.forward_derived(x, [derived])[0], rtol=1e-9, atol=1e-9)
    assert len(depths) > 1


@BOTH
@pytest.mark.parametrize("depth_space", ["skip_in", "sink"])
@torch.no_grad()
def test_a_sampled_path_differs_by_the_mixture_of_depths_alone(make_supernet, depth_space, sharing) -> None:
    supernet = make_supernet(depth_space, sharing)
    network, derived = inherit(supernet)
    x = torch.randn(4, 3, 16, 16, dtype=torch.double)
    path = torch.tensor(derived.operations)
    same = depth_space == "skip_in"
    assert torch.allclose(network(x), supernet.forward_path(x, path)) == same
    for beta, depth in zip(supernet.betas, derived.depths.values(), strict=True):
        beta.fill_(-1e4)
        if len(beta):
            beta[depth - 1] = 0.0
    torch.testing.assert_close(network(x), supernet.forward_path(x, path), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_batch_norm_is_inherited_as_the_identity(make_supernet) -> None:
    network, _ = inherit(make_supernet("sink", "entangled"))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        x = torch.randn(2, norm.num_features, 3, 3, dtype=torch.double)
        torch.testing.assert_close(norm.eval()(x), x / (1.0 + norm.eps) ** 0.5)
    assert len(norms) > 5


def test_the_weights_are_copies(make_supernet) -> None:
    supernet = make_supernet("sink", "entangled")
    state = inherited_state(supernet, supernet.derive("found"))
    before = {name: value.clone() for name, value in state.items()}
    with torch.no_grad():
        for leaf in supernet.weight_parameters():
            leaf.add_(1.0)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert not any(value.requires_grad for value in state.values())
