"""Eq. 9, the authors' variant and the objectives of Table 5."""

from __future__ import annotations

import math

import pytest
import torch

from tfnas.search.latency_loss import latency_loss


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
    value = latency_loss(latency, 10.0, kind)
    value.backward()
    assert float(value.detach()) == pytest.approx(loss)
    assert float(latency.grad) == pytest.approx(slope)
