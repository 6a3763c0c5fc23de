"""Metrics equal the same numbers by NumPy on known logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from tfnas.train.metrics import MetricSums


@given(k=st.integers(2, 12), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 2**31 - 1))
def test_sums_over_batches_of_any_size_equal_numpy_over_all_images(
    numpy_metrics, k: int, sizes: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(sum(sizes), k, generator=generator)
    labels = torch.randint(k, (sum(sizes),), generator=generator)
    sums = MetricSums(torch.device("cpu"))
    for some_logits, some_labels in zip(logits.split(sizes), labels.split(sizes), strict=True):
        sums.add(some_logits, some_labels, cross_entropy(some_logits, some_labels))
    found = sums.result()
    loss, top1, top5 = numpy_metrics(logits.double().numpy(), labels.numpy())
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.top1_percent == pytest.approx(top1)
    assert found.top5_percent == (pytest.approx(top5) if k >= 5 else None)
