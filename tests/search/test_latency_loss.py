"""Eq. 9 and the authors' variant."""

from __future__ import annotations

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
    ],
)
def test_value_and_slope_at_a_target_of_10_ms(kind, latency_ms, loss, slope) -> None:
    latency = torch.tensor(latency_ms, requires_grad=True)
    value = latency_loss(latency, 10.0, kind)
    value.backward()
    assert float(value.detach()) == pytest.approx(loss)
    assert float(latency.grad) == pytest.approx(slope)
