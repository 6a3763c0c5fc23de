"""Laws of a balanced epoch: from its start to any point, classes and the images of a class are used evenly."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfnas.data.images.loader import EpochSampler
from tfnas.data.images.order import balanced, numbered, shuffled

some_labels = st.lists(st.integers(0, 5).map(lambda label: label**2), min_size=1, max_size=60)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(some_labels, st.integers(0, 2**31), st.integers(0, 60))
def test_classes_and_images_of_a_class_differ_by_one_at_most(labels: list[int], seed: int, end: int) -> None:
    """Of the whole epoch and of any beginning of it."""
    order = balanced(labels, generator(seed))
    assert len(order) == len(labels)
    for part in (order, order[:end]):
        used = Counter(part)
        assert set(used) <= set(range(len(labels)))
        per_class = [sum(used[i] for i, label in enumerate(labels) if label == some) for some in set(labels)]
        assert max(per_class) - min(per_class) <= 1
        for some in set(labels):
            uses = [used[i] for i, label in enumerate(labels) if label == some]
            assert max(uses) - min(uses) <= 1


@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**31))
def test_equally_large_classes_give_every_image_once(classes: int, each: int, seed: int) -> None:
    order = balanced([label for label in range(classes) for _ in range(each)], generator(seed))
    assert sorted(order) == list(range(classes * each)) == sorted(shuffled(classes * each, generator(seed)))


@given(some_labels, st.integers(0, 2**31))
def test_an_image_s_uses_are_numbered_from_zero(labels: list[int], seed: int) -> None:
    order = balanced(labels, generator(seed))
    pairs = list(numbered(order))
    assert [index for index, _ in pairs] == order and len(set(pairs)) == len(pairs)
    assert all(earlier == 0 or (index, earlier - 1) in pairs for index, earlier in pairs)


LABELS = [0] * 40 + [1] * 7 + [2] * 3


def keys(*, seed: int = 3, epoch: int = 2, start: int = 0, rank: int = 0, world_size: int = 1, drop_last: bool = True):
    sampler = EpochSampler(
        len(LABELS),
        12 // world_size,
        seed=seed,
        shuffle=True,
        labels=LABELS,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    sampler.epoch, sampler.start = epoch, start
    return list(sampler)


def test_seed_and_epoch_decide() -> None:
    assert keys() == keys()
    assert all(epoch == 2 for batch in keys() for epoch, _, _ in batch)
    orders = [[index for batch in some for _, index, _ in batch] for some in (keys(), keys(epoch=1), keys(seed=4))]
    assert orders[0] != orders[1] and orders[0] != orders[2]


@pytest.mark.parametrize("start", [1, 3, 4])
def test_a_resumed_epoch_is_the_rest_of_the_same_one(start: int) -> None:
    assert keys(start=start) == keys()[start:] and len(keys()) == 4


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_partition_each_batch(world_size: int, drop_last: bool) -> None:
    shares = [keys(rank=rank, world_size=world_size, drop_last=drop_last) for rank in range(world_size)]
    for number, whole in enumerate(keys(drop_last=drop_last)):
        parts = [key for share in shares if number < len(share) for key in share[number]]
        assert sorted(parts) == sorted(whole) and len(set(parts)) == len(parts)
