"""Eq. 5 and 6 against NumPy."""

from __future__ import annotations

import numpy as np
import torch

from tfnas.search.derivation.strongest import searchable_layers
from tfnas.search.supernet.sink_connecting import SinkConnectedStage, sink, stage_cost


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def test_sink_is_the_weighted_sum_of_all_outputs() -> None:
    outputs, beta = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64), torch.tensor([0.2, -1.0, 0.7], dtype=torch.float64)
    expected = np.tensordot(softmax(beta.numpy()), outputs.numpy(), 1)
    np.testing.assert_allclose(sink(list(outputs), beta), expected)


def test_stage_cost_counts_the_layers_up_to_each_depth() -> None:
    latencies, beta = torch.tensor([3.0, 5.0, 7.0]), torch.tensor([0.2, -1.0, 0.7])
    expected = softmax(beta.numpy()) @ np.array([3.0, 8.0, 15.0])
    np.testing.assert_allclose(stage_cost(latencies, beta), expected, rtol=1e-6)


def test_stage_runs_its_layers_in_series_and_joins_them(tiny_space) -> None:
    torch.manual_seed(0)
    layers = [layer for layer in searchable_layers(tiny_space) if layer.stage == 4]
    stage = SinkConnectedStage(layers, tiny_space.candidates)
    x, beta, path = torch.randn(2, 6, 4, 4), torch.tensor([0.1, 0.5, -0.3]), [1, 3, 0]
    outputs, y = [], x
    for layer, operation in zip(stage.mixed_ops(), path, strict=True):
        y = layer.forward_path(y, operation)
        outputs.append(y)
    expected = sum(weight * output for weight, output in zip(beta.softmax(-1), outputs, strict=True))
    torch.testing.assert_close(stage.forward_path(x, path, beta), expected)
    one_hot = torch.eye(len(tiny_space.candidates))[path]
    torch.testing.assert_close(stage.forward_mixed(x, one_hot, beta), expected)
