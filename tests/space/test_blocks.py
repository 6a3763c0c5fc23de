"""MBInvRes against the formulas of Appendix A, and the expectation of drop-connect."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tfnas.space import Block
from tfnas.space.network import DropConnect, MBInvRes, SqueezeExcite, activation

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


@settings(max_examples=60, deadline=None)
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
