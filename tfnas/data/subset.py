"""The classes and images of a search (Appendix B): one class from each accuracy group, its images split in two parts.

In the paper, a class is drawn at random and 80 % of its images train the weights. Here the draw and the split follow
from hashes of the seed and of names: they are the same on every machine, and adding an image moves no other one.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

from tfnas.compute.seeding import derive_seed
from tfnas.data.class_accuracy import ClassAccuracy, rank
from tfnas.data.manifest import ManifestRecord
from tfnas.data.sources.image_folder import class_name
from tfnas.jobs.errors import UserError

Item = TypeVar("Item")
RANKED_GROUPS, RANDOM, CLASS_LIST = "ranked_groups", "random", "class_list"
CLASS_COLUMN_NAMES = ("class", "wnid")
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
    strategy: str = RANKED_GROUPS,
    class_list: Sequence[str] = (),
    images_per_class: int | None = None,
) -> Subset:
    """Choose classes and split the training images of each.

    Args:
        strategy: ranked_groups: one class of each accuracy group; random: as many of all classes, the paper's
            baseline; class_list: those of a list.
        images_per_class: of which at most so many are used, 2 or more; None: all.

    Raises:
        UserError: more groups than classes, a class of the list that is not there, or a chosen class with a single
            image.
    """
    classes = choose_classes(accuracies, groups, strategy=strategy, class_list=class_list, seed=seed)
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
        first, second = split_images(paths[name], train_fraction, seed=seed, most=images_per_class)
        train += [SubsetImage(path, name, label) for path in first]
        val += [SubsetImage(path, name, label) for path in second]
    return Subset(classes, train, val)


def without(subset: Subset, broken: Collection[str]) -> Subset:
    """The subset without some images."""
    train, val = ([image for image in part if image.path not in broken] for part in (subset.train, subset.val))
    return subset._replace(train=train, val=val)


def choose_classes(
    accuracies: Iterable[ClassAccuracy], groups: int, *, strategy: str, class_list: Sequence[str], seed: int
) -> list[ChosenClass]:
    """The classes of a strategy, in the order of names, which gives the labels.

    With class_list and random, `group` is the accuracy group among as many groups as there are chosen classes: it shows
    how evenly the classes are spread.

    Raises:
        UserError: as `build_subset`.
    """
    ranked = rank(accuracies)
    if strategy == RANKED_GROUPS:
        return draw_classes(ranked, groups, seed=seed)
    if strategy == RANDOM:
        check_groups(groups, len(ranked))
        shuffled = sorted(ranked, key=lambda row: (derive_seed(seed, "draw", row.class_name), row.class_name))
        chosen = {row.class_name for row in shuffled[:groups]}
    else:
        chosen = {class_name(name) for name in class_list}
        missing = sorted(chosen - {row.class_name for row in ranked})
        if missing:
            raise UserError(
                f"params.yaml: build_subset.class_list: class {missing[0]!r} is not in the data set"
                f" ({len(missing)} of {len(chosen)} are not)"
            )
    parts = enumerate(cut(ranked, len(chosen)), start=1)
    rows = [(row.class_name, group, row.top1) for group, part in parts for row in part if row.class_name in chosen]
    return [ChosenClass(label, *row) for label, row in enumerate(sorted(rows))]


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


def split_images(
    paths: Iterable[str], train_fraction: float, *, seed: int, most: int | None = None
) -> tuple[list[str], list[str]]:
    """The images of one class in two parts, each sorted by path.

    The first has `train_fraction` of them, rounded down as in the authors' lists (617 of 772), but each part has at
    least one image.

    Args:
        most: images of the class that are used, 2 or more; None: all.
    """
    shuffled = sorted(paths, key=lambda path: (derive_seed(seed, "split", path), path))[:most]
    exact = Fraction(str(train_fraction)) * len(shuffled)  # 0.29 of 100 are 29; in floats, 28.99...
    count = min(max(int(exact), 1), len(shuffled) - 1)
    return sorted(shuffled[:count]), sorted(shuffled[count:])


def read_class_list(path: str | Path) -> list[str]:
    """The classes that a file names: one per line, or the column `class` or `wnid` of a CSV file with a header.

    Columns may be separated by commas, semicolons or tabs, and a byte order mark may come first, as spreadsheets write.

    Raises:
        UserError: missing, not text, a line without a class, fewer than two classes, or a duplicate.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); set build_subset.class_list to a list of classes") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 (build_subset.class_list); save it as text or CSV in UTF-8") from None
    rows, column = _class_column([line for line in lines if line.strip() and not line.lower().startswith("sep=")])
    if any(len(row) <= column or not row[column] for row in rows):
        short = next(row for row in rows if len(row) <= column or not row[column])
        raise UserError(
            f"{path}: the line {','.join(short)!r} names no class (build_subset.class_list); name one in it"
        )
    names = [row[column] for row in rows]
    if len(names) < 2:
        raise UserError(f"{path}: names {len(names)} classes (build_subset.class_list); a search needs 2 or more")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: names class {twice!r} twice (build_subset.class_list)")
    return names


def _class_column(lines: list[str]) -> tuple[list[list[str]], int]:
    """The cells of each line below the header, and the index of the class column; without a header, the first."""
    for separator in ",;\t":
        rows = [[cell.strip() for cell in cells] for cells in csv.reader(lines, delimiter=separator)]
        rows = [row for row in rows if any(row)]  # a spreadsheet writes empty rows as separators alone
        header = [cell.lower() for cell in rows[0]] if rows else []
        column = next((header.index(name) for name in CLASS_COLUMN_NAMES if name in header), None)
        if column is not None:
            return rows[1:], column
    return [[line.strip().strip('"')] for line in lines], 0
