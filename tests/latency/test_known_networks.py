"""Known networks: at width 1 torchvision's and the paper's own, wider ones cost more, and a fit keeps to the limit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tfnas.jobs.errors import UserError
from tfnas.latency.baselines import count_module_macs
from tfnas.latency.known_networks import COARSE, build_known, fit_width, rounded, widened
from tfnas.latency.params import known_names
from tfnas.space import count_params, zoo

AS_TORCHVISION = {
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3_small": "mobilenet_v3_small",
    "mobilenet_v3_large": "mobilenet_v3_large",
    "mnasnet": "mnasnet1_0",
    "efficientnet_b0": "efficientnet_b0",
    "shufflenet_v2": "shufflenet_v2_x1_0",
}


def shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def test_every_network_is_torchvisions_or_the_papers():
    assert set(known_names()) == set(AS_TORCHVISION) | set(zoo.names())


@pytest.mark.parametrize("name", sorted(AS_TORCHVISION.keys() - {"shufflenet_v2"}))
def test_at_width_1_it_is_torchvisions(name):
    from torchvision.models import get_model

    with torch.device("meta"):
        assert shapes(build_known(name, 1.0, 1000)) == shapes(get_model(AS_TORCHVISION[name], weights=None))


def test_shufflenet_is_torchvisions_but_for_rounding_to_8():
    from torchvision.models import get_model

    with torch.device("meta"):
        ours, theirs = build_known("shufflenet_v2", 1.0, 1000), get_model("shufflenet_v2_x1_0", weights=None)
    assert list(shapes(ours)) == list(shapes(theirs))
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (ours, theirs)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03)


@pytest.mark.parametrize("name", known_names())
def test_wider_costs_more_and_gives_logits(name):
    macs = []
    for width in (0.25, 0.5, 1.0):
        with torch.device("meta"):
            macs.append(count_module_macs(build_known(name, width, 10).eval(), 32))
    assert macs == sorted(macs) and len(set(macs)) == len(macs)
    network = build_known(name, 0.25, 7, dropout=0.1, drop_connect=0.1).eval()
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("name", ["TF-NAS-A", "TF-NAS-CPU-B", "TF-NAS-MBV2-C"])
def test_a_widened_architecture_is_one_that_can_be_saved(name, tmp_path):
    known = [n for n in zoo.names() if n == name]
    for architecture in (zoo.load(n) for n in known or zoo.names()[:1]):
        assert widened(architecture, 1.0) is architecture
        half = widened(architecture, 0.5)
        half.save(tmp_path / "half.json")
        assert type(half).load(tmp_path / "half.json") == half
        assert 0.15 < count_params(half) / count_params(architecture) < 0.6


def test_drop_connect_reaches_efficientnet():
    rates = [m.p for m in build_known("efficientnet_b0", 1.0, 10, drop_connect=0.1).modules() if hasattr(m, "p")]
    default = [m.p for m in build_known("efficientnet_b0", 1.0, 10, drop_connect=0.2).modules() if hasattr(m, "p")]
    assert max(rates) > 0.0 and rates[1:-1] == pytest.approx([rate / 2 for rate in default[1:-1]])


@pytest.mark.parametrize("name", sorted(AS_TORCHVISION))
def test_running_statistics_follow_as_in_a_network_of_a_space(name):
    """After 100 batches of one distribution, evaluation sees almost what training sees; MNASNet's own would not."""
    torch.manual_seed(0)
    network, images = build_known(name, 0.25, 10), torch.randn(100, 16, 3, 32, 32)
    first = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    seen = []
    first.register_forward_hook(lambda module, given, result: seen.append(given[0].detach()))
    with torch.no_grad():
        for batch in images:
            network(batch)
    every = torch.stack(seen).transpose(0, 2).flatten(1)
    assert torch.allclose(first.running_mean, every.mean(1), atol=0.05 * float(every.std()))
    assert torch.allclose(first.running_var, every.var(1), rtol=0.1)
    momenta = {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {nn.BatchNorm2d(1).momentum}


@given(st.floats(1, 5000))
def test_rounding_stays_near(channels):
    result = rounded(channels)
    assert result % 8 == 0 and result >= 8
    assert 0.9 * channels <= result <= channels + 8


@given(st.floats(0.2, 20), st.floats(0.01, 3), st.floats(0.5, 2))
def test_a_fit_is_measured_and_within_the_limit(limit_ms, per_width, power):
    measured = {}

    def measure(widths):
        return [measured.setdefault(width, 0.1 + per_width * width**power) for width in widths]

    if 0.1 + per_width * COARSE[0] ** power > limit_ms:
        assert fit_width("mnasnet", limit_ms, measure) == (COARSE[0], measured[COARSE[0]])  # the narrowest, too slow
        return
    found = fit_width("mnasnet", limit_ms, measure)
    assert found.latency_ms == measured[found.width] <= limit_ms
    assert not [width for width, ms in measured.items() if width > found.width and ms <= limit_ms]
    wider = [width for width in measured if width > found.width]
    assert not wider or min(wider) - found.width <= 0.2  # no coarser than a seventh of a coarse step


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="no known network is called 'resnet'"):
        build_known("resnet", 1.0, 10)
