"""What a network costs (Eq. 4), and Eq. 9 with the authors' variant and the objectives of Table 5."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tfnas.latency import OperationKey
from tfnas.search import Constraint, Loaders, Setting, search
from tfnas.search.cost import Cost, Latency, cost_loss


@pytest.mark.parametrize(
    ("kind", "latency_ms", "loss", "slope"),
    [
        ("target", 15.0, 0.5, 0.1),
        ("target", 8.0, 0.0, 0.0),
        ("target_abs", 15.0, 0.5, 0.1),
        ("target_abs", 8.0, 0.2, -0.1),
        ("linear", 8.0, 8.0, 1.0),
        ("log", 8.0, math.log(8000) ** 0.6, 0.6 * math.log(8000) ** -0.4 / 8),
        ("log", 0.5, math.log(500) ** 0.6, 0.6 * math.log(500) ** -0.4 / 0.5),
    ],
)
def test_value_and_slope_at_a_target_of_10_ms(kind, latency_ms, loss, slope) -> None:
    latency = torch.tensor(latency_ms, requires_grad=True)
    value = cost_loss(latency, 10.0, kind)
    value.backward()
    assert float(value.detach()) == pytest.approx(loss)
    assert float(latency.grad) == pytest.approx(slope)


def test_latency_of_a_network_is_the_tables_to_the_bit(tiny_space, tiny_table, random_network) -> None:
    latency, random = Latency(tiny_table), np.random.default_rng(0)
    for _ in range(20):
        architecture, _ = random_network(tiny_space, random)
        assert latency.value(architecture) == tiny_table.latency_ms(architecture)


class Channels(Cost):
    """A made-up cost: one for each expansion channel, ten for the fixed part."""

    name, unit, source = "channels", "count", "nowhere"
    base, fixed_stages = 10.0, (2,)

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution

    def operation(self, key: OperationKey, width: int) -> float:
        return float(width)

    def curve(self, key: OperationKey) -> tuple[int, np.ndarray]:
        return 1, np.arange(1.0, 1000.0)


def test_a_search_knows_nothing_of_a_cost_but_its_values(tiny_space, loaders, make_params) -> None:
    """Whatever is added up over blocks can be limited, here the number of channels."""
    constraint = Constraint(tiny_space, Channels(tiny_space.resolution), limit=60.0)
    result = search(constraint, Loaders(*loaders, num_classes=3), Setting(make_params()))
    architecture = result.derive("x").architecture
    value = 10 + sum(block.expand_channels for block in architecture.blocks if block.stage > 2)
    assert constraint.metrics(architecture) == {
        "target_count": 60.0,
        "table_channels_count": value,
        "gap_percent": pytest.approx(100 * (value / 60 - 1)),
    }
    assert value <= 60 and result.history[-1].derived_latency_after_ms == value
