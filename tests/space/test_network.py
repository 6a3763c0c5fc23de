"""Blocks and built networks: Appendix A's formulas, drop-connect, initialization, multiply-adds and parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tfnas.space import Block, build_network, count_macs, count_params, load_space, zoo
from tfnas.space.architecture import block_macs, block_params
from tfnas.space.network import DropConnect, MBInvRes, SqueezeExcite, activation
from tfnas.space.space import halve


@settings(max_examples=40)
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


ACTS = {"relu": functional.relu, "relu6": functional.relu6, "swish": lambda x: x * x.sigmoid()}


def mbinvres_by_hand(module, block, x):
    """Appendix A on the module's own weights, with BatchNorm's running statistics."""
    act = ACTS[block.act]

    def unit(name, y, **options):
        conv, norm = getattr(module, name).conv, getattr(module, name).norm
        y = functional.conv2d(y, conv.weight, **options)
        return functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    y = x
    if block.expand_channels > block.in_channels:
        y = act(unit("expand", y))
    y = act(unit("depthwise", y, stride=block.stride, padding=block.kernel // 2, groups=y.shape[1]))
    if block.se_channels:
        se = module.squeeze_excite
        pooled = functional.adaptive_avg_pool2d(y, 1).flatten(1)
        reduced = act(pooled @ se.reduce.weight[:, :, 0, 0].T + se.reduce.bias)
        scale = torch.sigmoid(reduced @ se.expand.weight[:, :, 0, 0].T + se.expand.bias)
        y = y * scale[:, :, None, None]
    y = unit("project", y)
    return x + y if block.stride == 1 and block.in_channels == block.out_channels else y


def disturb_norms(module):
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)


@settings(max_examples=60)
@given(
    kernel=st.sampled_from([1, 3, 5, 7]),
    in_channels=st.integers(1, 6),
    width=st.integers(1, 20),
    se_channels=st.integers(0, 4),
    out_channels=st.integers(1, 6),
    act=st.sampled_from(sorted(ACTS)),
    stride=st.sampled_from([1, 2]),
    size=st.integers(1, 9),
)
@torch.no_grad()
def test_block_is_the_formula(kernel, in_channels, width, se_channels, out_channels, act, stride, size) -> None:
    torch.manual_seed(0)
    block = Block(kernel, in_channels, width, se_channels, out_channels, act, stride)
    module = MBInvRes(block).eval()
    disturb_norms(module)
    x = torch.randn(2, in_channels, size, size)
    expected = mbinvres_by_hand(module, block, x.clone())
    torch.testing.assert_close(module(x.clone()), expected, rtol=1e-4, atol=1e-4)


def test_the_input_stays_as_it_was() -> None:
    block = Block(3, 4, 4, 0, 4, "relu", 1)  # no expansion: the first thing it meets is the depthwise convolution
    x = torch.randn(2, 4, 5, 5)
    before = x.clone()
    MBInvRes(block)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("width", "expands"), [(3, False), (4, False), (5, True)])
def test_expansion_disappears_up_to_the_input_channels(width, expands) -> None:
    module = MBInvRes(Block(3, 4, width, 2, 6, "swish", 1))
    assert isinstance(module.expand, nn.Identity) != expands
    assert module.depthwise.conv.out_channels == max(width, 4)
    assert module.squeeze_excite.reduce.in_channels == max(width, 4)


@pytest.mark.parametrize(
    ("stride", "out_channels", "residual"), [(1, 4, True), (2, 4, False), (1, 5, False), (2, 5, False)]
)
def test_residual_exactly_where_the_shape_stays(stride, out_channels, residual) -> None:
    block = Block(3, 4, 8, 0, out_channels, "relu", stride)
    module = MBInvRes(block).eval()
    nn.init.zeros_(module.project.norm.weight)  # the branch is zero, its bias too
    x = torch.randn(1, 4, 6, 6)
    assert block.has_residual == residual
    expected = x if residual else torch.zeros(1, out_channels, *(2 * [6 // stride]))
    torch.testing.assert_close(module(x), expected)


def test_squeeze_excite_scales_each_channel_of_each_sample() -> None:
    x = torch.randn(2, 4, 5, 5)
    ratio = SqueezeExcite(4, 2, "swish")(x) / x
    assert ratio.std((2, 3)).max() < 1e-5
    assert ratio.min() > 0 and ratio.max() < 1


def test_drop_connect_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    x = torch.ones(20000, 2, 1, 2)
    out = DropConnect(0.3).train()(x)
    values = out.flatten(1)
    assert (values == values[:, :1]).all()  # a sample is dropped as a whole
    kept = values[:, 0] > 0
    torch.testing.assert_close(values[kept], torch.full_like(values[kept], 1 / 0.7))
    assert kept.float().mean() == pytest.approx(0.7, abs=5 * (0.3 * 0.7 / 20000) ** 0.5)
    assert out.mean() == pytest.approx(1.0, abs=0.025)


@pytest.mark.parametrize(("drop_rate", "training"), [(0.3, False), (0.0, True)])
def test_drop_connect_is_off_outside_training_and_at_rate_0(drop_rate, training) -> None:
    x = torch.randn(8, 2, 3, 3)
    assert torch.equal(DropConnect(drop_rate).train(training)(x), x)


def test_a_dropped_residual_block_passes_its_input() -> None:
    torch.manual_seed(0)
    module = MBInvRes(Block(3, 4, 8, 0, 4, "relu", 1), drop_connect=0.5).train()
    x = torch.randn(64, 4, 6, 6)
    same = (module(x) == x).flatten(1).all(1)
    assert same.any() and not same.all()


@pytest.mark.parametrize("name", sorted(ACTS))
def test_activations(name) -> None:
    x = torch.linspace(-8, 8, 33)
    torch.testing.assert_close(activation(name)(x.clone()), ACTS[name](x))


MILLIONS = {  # added up by hand from Tables 14-25; the paper's Table 2 has 504 for A-wose
    "TF-NAS-A": 456.7,
    "TF-NAS-B": 360.5,
    "TF-NAS-C": 284.3,
    "TF-NAS-D": 218.7,
    "TF-NAS-A-wose": 512.8,
    "TF-NAS-B-wose": 432.7,
    "TF-NAS-C-wose": 315.4,
    "TF-NAS-D-wose": 285.7,
    "TF-NAS-CPU-A": 305.0,
    "TF-NAS-CPU-B": 230.6,
    "TF-NAS-MBV2-A": 444.8,
    "TF-NAS-MBV2-B": 296.5,
}

FLOPS_M = {  # as printed in Tables 2, 8, 9 and 11
    "TF-NAS-A": 457,
    "TF-NAS-B": 361,
    "TF-NAS-C": 284,
    "TF-NAS-D": 219,
    "TF-NAS-A-wose": 504,
    "TF-NAS-B-wose": 433,
    "TF-NAS-C-wose": 315,
    "TF-NAS-D-wose": 286,
    "TF-NAS-CPU-A": 305,
    "TF-NAS-CPU-B": 230,
    "TF-NAS-MBV2-A": 445,
    "TF-NAS-MBV2-B": 297,
}
MISPRINTED = {"TF-NAS-A-wose": 513, "TF-NAS-CPU-B": 231}  # what Tables 18 and 23 add up to


def params_of(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", zoo.names())
def test_multiply_adds_of_the_paper(name) -> None:
    assert count_macs(zoo.load(name)) / 1e6 == pytest.approx(MILLIONS[name], abs=0.1)


@pytest.mark.parametrize("name", zoo.names())
def test_the_printed_flops_count_pooling_and_biases_as_well(name) -> None:
    architecture = zoo.load(name)
    se_biases = sum(b.se_channels + b.expand_channels for b in architecture.blocks if b.se_channels)
    printed = count_macs(architecture) + se_biases + 1000 + 1280 * 7**2  # classifier's bias, pooling
    assert round(printed / 1e6) == MISPRINTED.get(name, FLOPS_M[name])


@pytest.mark.parametrize("name", zoo.names())
def test_published_networks_count_as_they_are_built(name, macs_by_hooks) -> None:
    architecture = zoo.load(name)
    network = build_network(architecture)
    assert count_params(architecture) == params_of(network)
    assert count_macs(architecture) == macs_by_hooks(network, 224)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), resolution=st.integers(9, 70), num_classes=st.integers(1, 20))
def test_any_network_counts_as_it_is_built(draw_any, macs_by_hooks, seed, resolution, num_classes) -> None:
    architecture = draw_any(np.random.default_rng(seed))
    network = build_network(architecture, num_classes)
    assert count_params(architecture, num_classes) == params_of(network)
    assert count_macs(architecture, resolution, num_classes) == macs_by_hooks(network, resolution)


@pytest.mark.parametrize("space", ["tf-nas", "tf-nas-wose", "tf-nas-small-images", "mobilenet-v2"])
def test_members_of_a_space_count_as_they_are_built(space, draw_member, macs_by_hooks) -> None:
    random = np.random.default_rng(0)
    for _ in range(4):
        architecture = draw_member(load_space(space), random)
        network = build_network(architecture, 10)
        assert count_params(architecture, 10) == params_of(network)
        assert count_macs(architecture, 96, 10) == macs_by_hooks(network, 96)


def test_the_whole_is_fixed_parts_and_blocks() -> None:
    architecture = zoo.load("TF-NAS-A")
    blocks = sum(block_macs(block, size) for size, block in architecture.block_resolutions(224))
    stem, head, classifier = 27 * 32 * 112**2, 320 * 1280 * 7**2, 1280 * 1000
    assert count_macs(architecture) == stem + blocks + head + classifier
    weights = sum(block_params(block) for block in architecture.blocks)
    assert count_params(architecture) == (27 + 2) * 32 + weights + (320 + 2) * 1280 + 1281 * 1000
