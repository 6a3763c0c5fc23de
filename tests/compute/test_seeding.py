"""Seeds: the same for the same purpose on every machine, different for different ones."""

from __future__ import annotations

import hashlib

from tfnas.compute.seeding import derive_seed, seed_everything


def test_seeds_follow_seed_and_names() -> None:
    purposes = [(seed, *names) for seed in (0, 1) for names in [("a",), ("b",), ("a", 1), ("a", 2)]]
    seeds = {derive_seed(*purpose) for purpose in purposes}
    assert len(seeds) == len(purposes)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(0, "a") == int.from_bytes(hashlib.sha256(b"0/a").digest()[:4], "big")


def test_all_three_generators_start_anew() -> None:
    import random

    import numpy as np
    import torch

    def draw() -> tuple[float, float, float]:
        seed_everything(3)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first, second = draw(), draw()
    assert first == second
