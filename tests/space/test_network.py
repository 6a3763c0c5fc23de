"""Built networks: shapes, dropout, drop-connect's rates, initialisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tfnas.space import build_network, zoo
from tfnas.space.network import DropConnect, MBInvRes
from tfnas.space.space import halve


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), resolution=st.integers(5, 40))
def test_each_part_has_the_shapes_of_the_architecture(draw_any, seed, resolution) -> None:
    architecture = draw_any(np.random.default_rng(seed))
    network = build_network(architecture, 7).eval()
    with torch.inference_mode():
        x = network.stem(torch.randn(2, architecture.stem.in_channels, resolution, resolution))
        for module, (size, block) in zip(network.blocks, architecture.block_resolutions(resolution), strict=True):
            assert x.shape == (2, block.in_channels, size, size)
            x = module(x)
            out_size = halve(size, block.stride)
            assert x.shape == (2, block.out_channels, out_size, out_size)
        assert network.head(x).shape == (2, architecture.head.out_channels, out_size, out_size)
        assert network.classifier(torch.randn(2, architecture.head.out_channels)).shape == (2, 7)


@pytest.mark.parametrize("name", ["TF-NAS-A", "TF-NAS-MBV2-B"])
def test_a_published_network_classifies(name) -> None:
    network = build_network(zoo.load(name)).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 224, 224))
    assert logits.shape == (1, 1000) and logits.isfinite().all()


def test_the_activation_of_every_part() -> None:
    architecture = zoo.load("TF-NAS-A")
    network = build_network(architecture, 10)
    kinds = {"relu": nn.ReLU, "swish": nn.SiLU}
    assert isinstance(network.stem.act, nn.ReLU) and isinstance(network.head.act, nn.SiLU)
    for module, block in zip(network.blocks, architecture.blocks, strict=True):
        units = [module.depthwise] if isinstance(module.expand, nn.Identity) else [module.expand, module.depthwise]
        assert all(isinstance(unit.act, kinds[block.act]) for unit in units)
        assert not hasattr(module.project, "act")  # linear (Appendix A)


def test_dropout_stands_before_the_classifier_and_only_there() -> None:
    network = build_network(zoo.load("TF-NAS-D"), 10, dropout=0.3)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.3]
    assert [name for name, _ in network.classifier.named_children()] == ["dropout", "linear"]


def test_drop_connect_rises_linearly_to_its_rate_where_there_is_a_residual() -> None:
    architecture = zoo.load("TF-NAS-A")
    network = build_network(architecture, 10, drop_connect=0.2)
    count = len(architecture.blocks)
    for i, (module, block) in enumerate(zip(network.blocks, architecture.blocks, strict=True), start=1):
        assert isinstance(module.drop_connect, DropConnect) == block.has_residual
        if block.has_residual:
            assert module.drop_connect.drop_rate == pytest.approx(0.2 * i / count)


def test_biases_begin_at_zero_and_batchnorm_at_the_identity() -> None:
    network = build_network(zoo.load("TF-NAS-D"), 10)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            assert not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()


def test_the_same_seed_gives_the_same_network() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_network(zoo.load("TF-NAS-D"), 10).state_dict())
    same = [all(torch.equal(states[0][key], other[key]) for key in states[0]) for other in states[1:]]
    assert same == [True, False]


def test_every_parameter_gets_a_gradient(draw_any) -> None:
    architecture = zoo.load("TF-NAS-CPU-B")
    network = build_network(architecture, 5).train()
    network(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    assert sum(isinstance(module, MBInvRes) for module in network.modules()) == len(architecture.blocks)
