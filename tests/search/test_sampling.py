"""Paths: how often each operation is taken, and what the second path never takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tfnas.search.sampling import SECOND_PATHS, gumbel_noise, gumbel_path, gumbel_softmax, second_path

K = 4
ALPHAS = torch.tensor([0.3, -1.0, 0.9, 0.1])
DRAWS = 20_000
CHI_SQUARE_3 = 16.27  # exceeded with probability 0.001 at 3 degrees of freedom
CHI_SQUARE_2 = 13.82


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.2, 5.0])
def test_gumbel_path_takes_operations_as_often_as_softmax_says(temperature) -> None:
    path = gumbel_path(ALPHAS.expand(DRAWS, K), temperature, generator())
    counts = torch.bincount(path, minlength=K).numpy()
    assert chi_square(counts, DRAWS * ALPHAS.softmax(-1).numpy()) < CHI_SQUARE_3


def test_equation_3_against_numpy() -> None:
    noise = gumbel_noise(torch.Size((6, K)), generator())
    alphas = torch.randn(6, K, generator=generator(1), dtype=torch.float64)
    logits = np.exp((alphas.numpy() + noise.numpy()) / 2.5)
    np.testing.assert_allclose(gumbel_softmax(alphas, 2.5, noise), logits / logits.sum(1, keepdims=True), rtol=1e-6)


def test_noise_is_gumbel() -> None:
    noise = gumbel_noise(torch.Size((DRAWS,)), generator())
    assert torch.isfinite(noise).all()
    for x in (-1.0, 0.0, 1.0, 3.0):
        assert float((noise <= x).float().mean()) == pytest.approx(np.exp(-np.exp(-x)), abs=0.012)


@pytest.mark.parametrize("kind", sorted(SECOND_PATHS))
def test_second_path_never_takes_the_first_ones_operation(kind) -> None:
    alphas = torch.randn(500, K, generator=generator(2))
    first = gumbel_path(alphas, 1.0, generator(3))
    second = second_path(kind, alphas, first, 1.0, generator(4))
    assert second.shape == first.shape
    assert (second != first).all()
    assert ((second >= 0) & (second < K)).all()


def test_random_second_path_is_uniform_over_the_rest() -> None:
    first = torch.full((DRAWS,), 2)
    second = second_path("random", ALPHAS.expand(DRAWS, K), first, 1.0, generator())
    counts = torch.bincount(second, minlength=K).numpy()
    assert counts[2] == 0
    assert chi_square(counts[[0, 1, 3]], np.full(3, DRAWS / 3)) < CHI_SQUARE_2


def test_gumbel_second_path_follows_alpha_among_the_rest() -> None:
    first = torch.full((DRAWS,), 2)
    second = second_path("gumbel", ALPHAS.expand(DRAWS, K), first, 5.0, generator())
    rest = ALPHAS[[0, 1, 3]].softmax(-1).numpy()
    counts = torch.bincount(second, minlength=K).numpy()[[0, 1, 3]]
    assert chi_square(counts, DRAWS * rest) < CHI_SQUARE_2


def test_largest_and_smallest_alpha_of_the_rest() -> None:
    alphas, first = ALPHAS.expand(K, K), torch.arange(K)
    assert second_path("max_alpha", alphas, first, 1.0, generator()).tolist() == [2, 2, 0, 2]
    assert second_path("min_alpha", alphas, first, 1.0, generator()).tolist() == [1, 3, 1, 1]


def test_paths_follow_from_the_generator() -> None:
    alphas = ALPHAS.expand(100, K)
    assert torch.equal(gumbel_path(alphas, 1.0, generator(7)), gumbel_path(alphas, 1.0, generator(7)))
    assert not torch.equal(gumbel_path(alphas, 1.0, generator(7)), gumbel_path(alphas, 1.0, generator(8)))
