"""The classes and images of a search (Appendix B): one class out of each accuracy group, split in two parts.

The paper says that a class is drawn at random and 80 % of its images train the weights. Here the draw and the split
follow from hashes of the seed and of names, so they are the same on every machine, and an image that is added moves
no other one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple, TypeVar

from tfnas.data.class_accuracy import ClassAccuracy, rank
from tfnas.data.manifest import ManifestRecord
from tfnas.runtime.errors import UserError
from tfnas.runtime.seeding import derive_seed

Item = TypeVar("Item")
MIN_IMAGES = 2  # of a drawn class: one for each part


class ChosenClass(NamedTuple):
    """A drawn class."""

    label: int  # from 0, in the order of names
    class_name: str
    group: int  # from 1, the group of the best classes first
    top1: float  # percent


class SubsetImage(NamedTuple):
    """An image of a drawn class."""

    path: str
    class_name: str
    label: int


class Subset(NamedTuple):
    """What build_subset writes."""

    classes: list[ChosenClass]
    train: list[SubsetImage]  # for the weights
    val: list[SubsetImage]  # for alpha and beta


def build_subset(
    accuracies: Iterable[ClassAccuracy],
    records: Iterable[ManifestRecord],
    *,
    groups: int,
    train_fraction: float,
    seed: int,
) -> Subset:
    """Draw one class per group and split its training images.

    Raises:
        UserError: more groups than classes, or a drawn class with a single image.
    """
    classes = draw_classes(accuracies, groups, seed=seed)
    labels = {chosen.class_name: chosen.label for chosen in classes}
    paths: dict[str, list[str]] = {name: [] for name in labels}
    for record in records:
        if record.split == "train" and record.class_name in labels:
            paths[record.class_name].append(record.path)
    train, val = [], []
    for name, label in labels.items():
        if len(paths[name]) < MIN_IMAGES:
            raise UserError(
                f"prepare_data: class {name!r} has {len(paths[name])} training images; it needs 2, one to train on and"
                f" one to validate on"
            )
        first, second = split_images(paths[name], train_fraction, seed=seed)
        train += [SubsetImage(path, name, label) for path in first]
        val += [SubsetImage(path, name, label) for path in second]
    return Subset(classes, train, val)


def draw_classes(accuracies: Iterable[ClassAccuracy], groups: int, *, seed: int) -> list[ChosenClass]:
    """One class of each accuracy group, in the order of names, which gives the labels.

    Raises:
        UserError: more groups than classes.
    """
    ranked = rank(accuracies)
    check_groups(groups, len(ranked))
    drawn = []
    for group, members in enumerate(cut(ranked, groups), start=1):
        winner = min(members, key=lambda row: (derive_seed(seed, "draw", row.class_name), row.class_name))
        drawn.append((winner.class_name, group, winner.top1))
    return [ChosenClass(label, *row) for label, row in enumerate(sorted(drawn))]


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


def split_images(paths: Iterable[str], train_fraction: float, *, seed: int) -> tuple[list[str], list[str]]:
    """The images of one class in two parts, each sorted by path.

    The first has `train_fraction` of them, rounded down as in the authors' lists (617 of 772), but each part has one
    image at least.
    """
    shuffled = sorted(paths, key=lambda path: (derive_seed(seed, "split", path), path))
    exact = Fraction(str(train_fraction)) * len(shuffled)  # 0.29 of 100 are 29; in floats, 28.99...
    count = min(max(int(exact), 1), len(shuffled) - 1)
    return sorted(shuffled[:count]), sorted(shuffled[count:])
