"""Favored widths are found in noise, and none where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from tfnas.latency.tours import ALIGNMENTS, find_alignment, widths_to_compare

RANGES = ((32, 128), (80, 320), (160, 640), (384, 1536))  # of layers of Table 1


def test_widths_to_compare_are_in_range_and_of_every_class() -> None:
    for low, high in (*RANGES, (17, 64), (30, 65)):
        widths = widths_to_compare(low, high)
        assert widths == sorted(set(widths)) and low <= widths[0] and widths[-1] <= high
        assert all(sum(width % alignment == 0 for width in widths) >= 2 for alignment in ALIGNMENTS)
        assert sum(width % 2 for width in widths) >= 4
    assert widths_to_compare(17, 46) == []


def measured(alignment, gains, noise, random):
    """Latencies of an operation per gain; one in twenty disturbed."""
    curves = []
    for (low, high), gain in zip(RANGES, gains, strict=True):
        widths = np.array(widths_to_compare(low, high))
        factors = np.exp(noise * random.normal(size=len(widths))) * (1 + 0.3 * (random.random(len(widths)) < 0.05))
        latencies = (10 + widths) * (1 - gain * (widths % alignment == 0)) * factors
        curves.append(dict(zip(widths.tolist(), latencies.tolist(), strict=True)))
    return curves


@pytest.mark.parametrize("noise", [0.01, 0.03])
@pytest.mark.parametrize(
    ("alignment", "gains"),
    [
        (
            16,
            (0.22, 0.12, 0.03, 0.03),
        ),  # PyTorch with AVX-512: a fifth in the first layers, next to nothing in the last
        (8, (0.1, 0.1, 0.05, 0.02)),
        (4, (0.33, 0.33, 0.33, 0.33)),
        (2, (0.1, 0.1, 0.1, 0.1)),
        (1, (0, 0, 0, 0)),
    ],
)
def test_found_in_noise(alignment, gains, noise) -> None:
    random = np.random.default_rng(0)
    found = [find_alignment(measured(alignment, gains, noise, random)) for _ in range(40)]
    assert np.mean(np.array(found) == alignment) >= 0.9
