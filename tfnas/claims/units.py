"""Finished units, and what the claims measure on one: shares of operations, depth, jitter, distance to the target."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tfnas.claims.variants import WARM_UP
from tfnas.jobs.artifacts import read_json

KIND, VERSION = "claims unit", 1
LAST_EPOCHS = 3  # whose accuracies are averaged
OPERATION = re.compile(r"(stage\d+_layer\d+)_op")
DEPTH = re.compile(r"stage\d+_depth")
Row = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """What `run_unit` wrote."""

    values: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Of its seed."""
        return int(self.values["number"])

    @property
    def history(self) -> list[Row]:
        """One row per epoch."""
        return list(self.values["history"])

    @property
    def searching(self) -> list[Row]:
        """The epochs in which alpha and beta were trained."""
        return [row for row in self.history if row["searches"]]

    @property
    def stopped_early(self) -> bool:
        return len(self.history) < int(self.values["epochs"])

    @property
    def chance(self) -> float:
        """Top-1 of guessing, in percent."""
        return 100.0 / float(self.values["num_classes"])


Runs = dict[str, dict[int, Unit]]  # of one kind of weight sharing: by variant, by number of the seed


def unit_path(folder: Path, variant: str, sharing: str, number: int | str) -> Path:
    """Where a unit is."""
    return folder / variant / sharing / f"seed_{number}" / "unit.json"


def warm_up_path(folder: Path, sharing: str, number: int | str) -> Path:
    """Where the supernet is that most variants of a seed start from."""
    return unit_path(folder, WARM_UP, sharing, number).with_name("supernet.pt")


def read_units(folder: Path, names: Sequence[str], sharing: str, seeds: int) -> Runs:
    """The finished units of one kind of weight sharing; variants without any are empty.

    Raises:
        UserError: a damaged file.
    """
    runs: Runs = {}
    for name in names:
        paths = {number: unit_path(folder, name, sharing, number) for number in range(seeds)}
        found = {number: path for number, path in paths.items() if path.exists()}
        runs[name] = {number: Unit(read_json(path, kind=KIND, version=VERSION)) for number, path in found.items()}
    return runs


def top1(unit: Unit) -> float:
    """Top-1 of the trained network, in percent."""
    return float(unit.values["top1_percent"])


def shares(unit: Unit) -> dict[str, float]:
    """Of each layer, the percentage of searching epochs that derived its most frequent operation (Fig. 2)."""
    rows = unit.searching
    layers = [match[1] for match in map(OPERATION.fullmatch, rows[0]) if match]
    counts = {layer: Counter(row[f"{layer}_op"] for row in rows) for layer in layers}
    return {layer: 100.0 * max(count.values()) / len(rows) for layer, count in counts.items()}


def share(unit: Unit) -> float:
    """The mean of `shares` over all searchable layers."""
    return statistics.fmean(shares(unit).values())


def train_accuracy(unit: Unit) -> float:
    """Training top-1 of the supernet's sampled paths in the last epochs, in percent (Fig. 2c)."""
    return statistics.fmean(row["train_top1"] for row in unit.history[-LAST_EPOCHS:])


def val_accuracy(unit: Unit) -> float:
    """The same on the images that train alpha (Fig. 2f)."""
    return statistics.fmean(row["val_top1"] for row in unit.history[-LAST_EPOCHS:])


def random_accuracy(unit: Unit) -> float:
    """Mean top-1 of uniformly random networks with the supernet's weights after the last epoch, in percent."""
    return float(unit.history[-1]["random_top1_mean"])


def depth_of(row: Row) -> int:
    """Searchable layers of the network derived after an epoch."""
    return sum(int(value) for name, value in row.items() if DEPTH.fullmatch(name))


def mean_depth(unit: Unit) -> float:
    """Over the searching epochs."""
    return statistics.fmean(depth_of(row) for row in unit.searching)


def jitter(unit: Unit) -> float:
    """Mean change of the depth from one searching epoch to the next, in layers."""
    depths = [depth_of(row) for row in unit.searching]
    return statistics.fmean(abs(b - a) for a, b in pairwise(depths)) if len(depths) > 1 else 0.0


def gap_of(row: Row) -> float:
    """How far the derived network is from the target, in percent of it, either way."""
    return abs(100.0 * (row["derived_latency_after_ms"] / row["target_ms"] - 1.0))


def gap(unit: Unit) -> float:
    """The mean of `gap_of` over the searching epochs."""
    return statistics.fmean(gap_of(row) for row in unit.searching)


def late_gap(unit: Unit) -> float:
    """The same over the second half of the searching epochs; the paper looks at those after the first 30 of 90."""
    rows = unit.searching
    return statistics.fmean(gap_of(row) for row in rows[len(rows) // 2 :])
