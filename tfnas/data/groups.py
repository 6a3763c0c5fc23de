"""Accuracy groups: consecutive classes of the ranking, as even as possible."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from tfnas.runtime.errors import UserError

Item = TypeVar("Item")


def check_groups(groups: int, num_classes: int) -> None:
    """Raise UserError when there are more groups than classes."""
    if groups > num_classes:
        raise UserError(
            f"params.yaml: build_subset.groups: {groups} groups, but there are {num_classes} classes to draw from;"
            f" write {num_classes} or fewer"
        )


def cut(ranked: Sequence[Item], groups: int) -> list[Sequence[Item]]:
    """Consecutive groups whose sizes differ by one at most."""
    bounds = [len(ranked) * group // groups for group in range(groups + 1)]
    return [ranked[start:end] for start, end in pairwise(bounds)]
