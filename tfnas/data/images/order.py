"""The order of an epoch's images: as they lie in the data set, shuffled, or with every class equally often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def shuffled(length: int, generator: torch.Generator) -> list[int]:
    """Every index once."""
    order: list[int] = torch.randperm(length, generator=generator).tolist()
    return order


def balanced(labels: Sequence[int], generator: torch.Generator) -> list[int]:
    """As many indices as there are labels, each class as often as any other.

    One image of each class, the classes in random order, then another of each, and so on; a class that has run out of
    images starts again with all of them, shuffled anew. So from the start to any point, the counts of two classes
    differ by at most one, and so do the counts of two images of one class. An epoch omits images of large classes:
    other ones each time.

    Args:
        labels: of each image, (N,).
    """
    of = torch.as_tensor(labels)
    classes = of.argsort(stable=True).split(of.unique(return_counts=True)[1].tolist())
    rounds = -(-len(of) // len(classes))
    images = torch.stack([_repeated(members, rounds, generator) for members in classes])  # (classes, rounds)
    turns = torch.stack([torch.randperm(len(classes), generator=generator) for _ in range(rounds)])
    order: list[int] = images[turns, torch.arange(rounds)[:, None]].flatten()[: len(of)].tolist()
    return order


def _repeated(members: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count,) of the members: all of them, shuffled, again and again."""
    passes = -(-count // len(members))
    return torch.cat([members[torch.randperm(len(members), generator=generator)] for _ in range(passes)])[:count]


def numbered(order: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each index, and how often it came before."""
    seen: Counter[int] = Counter()
    for index in order:
        yield index, seen[index]
        seen[index] += 1
