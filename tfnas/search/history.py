"""What an epoch of the search was like, and the CSV file of all of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tfnas.runtime.artifacts import atomic_path
from tfnas.search.derivation import Derived, searchable_layers
from tfnas.space import Space


@dataclass(frozen=True)
class EpochRecord:
    """One row of `history.csv`; None where an epoch of warm-up has no such value."""

    epoch: int  # counted from 1
    seconds: float
    learning_rate: float  # of weight steps
    temperature: float
    train_loss: float  # mean cross-entropy of the Gumbel path
    train_top1: float  # percent, of the Gumbel path
    architecture_loss: float | None  # mean cross-entropy of architecture steps
    latency_loss: float | None  # mean of Eq. 9 in architecture steps, without lambda
    expected_latency_ms: float  # LAT(alpha, beta), Eq. 6 with u = softmax(alpha), before scaling
    derived_latency_before_ms: float  # of the derived network, before elasticity-scaling
    derived_latency_after_ms: float
    target_ms: float
    alpha_entropy: float  # mean over layers, in nats
    val_top1: float  # percent, of the Gumbel path on the 20 %
    derived: dict[str, int | str]  # depth of each stage; strongest operation of each layer and its width

    def row(self) -> dict[str, int | float | str | None]:
        """One cell a column."""
        values = dict(vars(self))
        return {**{name: value for name, value in values.items() if name != "derived"}, **self.derived}

    def metrics(self) -> dict[str, float]:
        """The numbers without the epoch they belong to."""
        return {k: v for k, v in self.row().items() if k != "epoch" and isinstance(v, (int, float))}


def derived_columns(space: Space, derived: Derived, widths: list[list[int]]) -> dict[str, int | str]:
    """`stage3_depth`, ..., `stage3_layer1_op`, `stage3_layer1_width`, ..., layers beyond the depth included."""
    columns: dict[str, int | str] = {f"stage{stage}_depth": depth for stage, depth in derived.depths.items()}
    for i, layer in enumerate(searchable_layers(space)):
        operation = derived.operations[i]
        columns[f"stage{layer.stage}_layer{layer.position}_op"] = space.candidates[operation].name
        columns[f"stage{layer.stage}_layer{layer.position}_width"] = widths[i][operation]
    return columns


def write_history(history: Iterable[EpochRecord], path: str | Path) -> None:
    """One row an epoch, as CSV."""
    rows = [record.row() for record in history]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
