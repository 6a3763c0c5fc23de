"""Sink-connecting and its alternatives: what a stage computes, costs and derives; skip where it cannot be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.helpers.derived_networks import copy_shared_weights
from tfnas.search.cost import Latency
from tfnas.search.result import derived_columns, operation_names
from tfnas.search.sampling import SECOND_PATHS, gumbel_path, second_path
from tfnas.search.supernet.depth_spaces import DEPTH_SPACES
from tfnas.search.supernet.supernet import WEIGHT_SHARING, Supernet
from tfnas.space import build_network

FAR = 100.0  # softmax(0, 100) is one-hot in float32
SKIP = 4  # of the tiny space's four candidates
# of the layers 3.1, 3.2, 4.1, 4.2, 4.3: the strongest operation, and whether the layer is kept
OPERATIONS, KEPT = [1, 3, 0, 2, 3], {"sink": "11110", "skip_in": "11101", "skip_out": "11101"}
ALL = sorted(DEPTH_SPACES)


@pytest.fixture(params=WEIGHT_SHARING)
def make_supernet(tiny_space, request):
    """A supernet whose architecture parameters are one-hot."""

    def make(depth_space: str) -> Supernet:
        torch.manual_seed(0)
        net = Supernet(tiny_space, 3, depth_space, request.param)
        kept = [flag == "1" for flag in KEPT[depth_space]]
        chosen = [o if k or depth_space != "skip_in" else SKIP for o, k in zip(OPERATIONS, kept, strict=True)]
        with torch.no_grad():
            net.alphas.zero_()
            net.alphas[torch.arange(5), torch.tensor(chosen)] = FAR
            if depth_space == "sink":
                net.betas[0][1] = net.betas[1][1] = FAR
            if depth_space == "skip_out":
                net.betas[0][0, 0] = net.betas[1][0, 1] = net.betas[1][1, 0] = FAR
        return net

    return make


@torch.no_grad()
def derived_network(supernet, block_parameters):
    """The derived network with the supernet's weights, its BatchNorm as the supernet's."""
    derived = supernet.derive("x")
    network = build_network(derived.architecture, num_classes=3).train()
    copy_shared_weights(supernet, network, derived, block_parameters)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return network


@pytest.mark.parametrize("depth_space", ALL)
def test_one_hot_supernet_is_the_derived_network(make_supernet, depth_space, block_parameters) -> None:
    supernet = make_supernet(depth_space)
    derived = supernet.derive("x")
    assert "".join(str(int(kept)) for kept in derived.kept) == KEPT[depth_space]
    assert derived.depths == {3: 2, 4: 2}
    network, x = derived_network(supernet, block_parameters), torch.randn(4, 3, 16, 16)
    path = supernet.operation_logits().argmax(-1)
    torch.testing.assert_close(supernet.forward_path(x, path), network(x))
    torch.testing.assert_close(supernet.forward_mixed(x, supernet.operation_logits().softmax(-1)), network(x))


@pytest.mark.parametrize("depth_space", ALL)
def test_one_hot_latency_is_the_tables_of_the_derived_network(make_supernet, depth_space, tiny_table) -> None:
    supernet = make_supernet(depth_space)
    u, latencies = supernet.operation_logits().softmax(-1), supernet.operation_costs(Latency(tiny_table))
    found = supernet.expected_cost(u, latencies, tiny_table.base_ms)
    assert float(found.detach()) == pytest.approx(tiny_table.latency_ms(supernet.derive("x").architecture), rel=1e-6)


def test_skip_out_weights_both_ways_and_skip_in_all_operations(tiny_space) -> None:
    x, layers = torch.randn(2, 6, 4, 4), [layer for layer in tiny_space.layers() if layer.stage == 4]
    torch.manual_seed(0)
    out = DEPTH_SPACES["skip_out"](layers, tiny_space.candidates)
    beta = torch.tensor([[0.3, -0.5], [0.0, 1.0]])
    y = out.mixed_ops()[0].forward_path(x, 2)
    for position, (stays, skipped) in enumerate(beta.softmax(-1), start=1):
        y = stays * out.mixed_ops()[position].forward_path(y, 1) + skipped * y
    torch.testing.assert_close(out.forward_path(x, [2, 1, 1], beta), y)
    skip_in = DEPTH_SPACES["skip_in"](layers, tiny_space.candidates)
    skip_in.load_state_dict(out.state_dict())
    weights = torch.rand(3, 5).softmax(-1)
    y = skip_in.mixed_ops()[0].forward_mixed(x, weights[0, :4])
    for position in (1, 2):
        y = skip_in.mixed_ops()[position].forward_mixed(y, weights[position, :4]) + weights[position, 4] * y
    torch.testing.assert_close(skip_in.forward_mixed(x, weights, torch.zeros(0)), y)


def test_skip_is_no_operation_of_a_stages_first_layer(tiny_space) -> None:
    supernet = Supernet(tiny_space, 3, "skip_in")
    probabilities = supernet.operation_logits().softmax(-1)
    counts = torch.tensor([4, 5, 4, 5, 5])
    torch.testing.assert_close(probabilities.max(-1).values, 1 / counts)
    assert (probabilities[[0, 2], SKIP] == 0).all()
    alphas = supernet.operation_logits().repeat(400, 1)
    first = gumbel_path(alphas, 5.0, torch.Generator().manual_seed(0)).view(400, 5)
    assert (first < counts).all() and (first == SKIP).any()
    for kind in SECOND_PATHS:
        second = second_path(kind, alphas, first.flatten(), 5.0, torch.Generator().manual_seed(1)).view(400, 5)
        assert (second != first).all() and (second < counts).all()
        assert kind != "random" or all(second[:, i].unique().numel() == counts[i] for i in range(5))


@pytest.mark.parametrize("weight_sharing", WEIGHT_SHARING)
@pytest.mark.parametrize("depth_space", ALL)
def test_gradient_reaches_what_can_be_chosen_and_nothing_else(
    tiny_space, tiny_table, depth_space, weight_sharing
) -> None:
    torch.manual_seed(0)
    supernet = Supernet(tiny_space, 3, depth_space, weight_sharing)
    with torch.no_grad():
        for operation in supernet.operations():  # else equal operations would have no gradient between them
            operation.weights["project"].mul_(1 + torch.rand(1))
    u = supernet.operation_logits().softmax(-1)
    latency = supernet.expected_cost(u, supernet.operation_costs(Latency(tiny_table)), tiny_table.base_ms)
    (supernet.forward_mixed(torch.randn(4, 3, 16, 16), u).square().sum() + latency).backward()
    assert torch.equal(supernet.alphas.grad != 0, supernet.candidate_mask)
    for beta in supernet.betas:
        assert beta.numel() == 0 or (beta.grad != 0).all()
    supernet.normalize_architecture()
    sums = [supernet.operation_logits().exp().sum(-1), *(b.exp().sum(-1) for b in supernet.betas if b.numel())]
    for total in sums:
        torch.testing.assert_close(total, torch.ones_like(total))
    assert torch.isfinite(supernet.alphas).all()


def test_history_names_a_skipped_layer(make_supernet, tiny_space) -> None:
    for depth_space in ("skip_in", "skip_out"):
        supernet = make_supernet(depth_space)
        columns = derived_columns(tiny_space, supernet.derive("x"), supernet.widths(), [math.log(4)] * 5)
        assert columns["stage4_layer2_op"] == "skip" == operation_names(tiny_space)[SKIP]
        assert columns["stage4_layer2_width"] == 0 and columns["stage4_depth"] == 2
        assert columns["stage4_layer3_op"] == "k3_e3_se" and columns["stage4_layer3_width"] > 0
        assert columns["stage4_layer1_entropy"] == math.log(4)
