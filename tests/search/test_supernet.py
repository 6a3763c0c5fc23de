"""The supernet against the network it derives, and its latency against the table."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.derived_networks import copy_shared_weights
from tfnas.search.cost import Latency
from tfnas.search.derivation.strongest import searchable_layers
from tfnas.search.supernet.supernet import WEIGHT_SHARING, Supernet
from tfnas.space import build_network

FAR = 100.0  # softmax(0, 100) is one-hot in float32


@pytest.fixture(params=WEIGHT_SHARING)
def supernet(tiny_space, request):
    """A supernet whose architecture parameters are one-hot: depths 2 and 2, mixed operations."""
    torch.manual_seed(0)
    net = Supernet(tiny_space, 3, weight_sharing=request.param)
    with torch.no_grad():
        net.alphas.zero_()
        net.alphas[torch.arange(5), torch.tensor([1, 3, 0, 2, 3])] = FAR
        net.betas[0][1] = FAR
        net.betas[1][1] = FAR
    return net


def test_one_hot_supernet_computes_what_the_derived_network_computes(supernet, block_parameters) -> None:
    derived = supernet.derive("x")
    assert derived.depths == {3: 2, 4: 2}
    network = build_network(derived.architecture, num_classes=3).train()
    copy_shared_weights(supernet, network, derived, block_parameters)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    x = torch.randn(4, 3, 16, 16)
    expected = network(x)
    torch.testing.assert_close(supernet.forward_path(x, torch.tensor(derived.operations)), expected)
    torch.testing.assert_close(supernet.forward_mixed(x, supernet.alphas.softmax(-1)), expected)
    torch.testing.assert_close(supernet.eval().forward_path(x, torch.tensor(derived.operations)), expected)


def test_one_hot_latency_is_the_tables_of_the_derived_network(supernet, tiny_table) -> None:
    operations = list(supernet.operations())
    operations[1].set_width(17)  # one that is derived
    latencies = supernet.operation_costs(Latency(tiny_table))
    found = supernet.expected_cost(supernet.alphas.softmax(-1), latencies, tiny_table.base_ms)
    architecture = supernet.derive("x").architecture
    assert architecture.blocks[1].expand_channels == 17
    assert float(found.detach()) == pytest.approx(tiny_table.latency_ms(architecture), rel=1e-6)


def test_latency_of_a_mixture_is_equation_6(supernet, tiny_table) -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(5, 4, generator=generator).softmax(-1)
    with torch.no_grad():
        for beta in supernet.betas:
            beta.normal_(generator=generator)
    latencies = supernet.operation_costs(Latency(tiny_table))
    expected, layer = tiny_table.base_ms, 0
    for beta in supernet.betas:
        v, so_far = beta.softmax(-1), 0.0
        for depth in range(len(beta)):
            so_far += sum(float(u[layer, i] * latencies[layer, i]) for i in range(4))
            expected += float(v[depth].detach()) * so_far
            layer += 1
    found = supernet.expected_cost(u, latencies, tiny_table.base_ms)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_every_tensor_is_trained_by_exactly_one_kind_of_step(supernet) -> None:
    weights, architecture = supernet.weight_parameters(), supernet.architecture_parameters()
    assert not {id(p) for p in weights} & {id(p) for p in architecture}
    assert sum(p.numel() for p in architecture) == 5 * 4 + 2 + 3
    x = torch.randn(4, 3, 16, 16)
    weights_of_all = torch.rand(5, 4)
    (supernet.forward_mixed(x, weights_of_all * supernet.alphas.softmax(-1))).square().sum().backward()
    assert all(p.grad is not None for p in weights + architecture)


def test_layers_and_depths_are_those_of_table_1(table1) -> None:
    assert len(searchable_layers(table1)) == 18
    assert [stage.max_depth for stage in table1.searchable_stages] == [2, 3, 4, 4, 4, 1]


def test_batchnorm_learns_and_remembers_nothing(supernet) -> None:
    assert not [name for name in supernet.state_dict() if "running" in name or "norm" in name]
