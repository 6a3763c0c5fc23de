"""What an epoch of the search was like, and the CSV file of all of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tfnas.runtime.artifacts import atomic_path
from tfnas.search.depth_spaces import SKIP
from tfnas.search.derivation import Derived, searchable_layers
from tfnas.space import Space


@dataclass(frozen=True)
class EpochRecord:
    """One row of `history.csv`; None where an epoch of warm-up has no such value."""

    epoch: int  # counted from 1
    seconds: float | None  # None for epochs of a warm-up that was run once for all targets
    seconds_per_weight_step: float | None  # mean
    seconds_per_architecture_step: float | None  # mean
    learning_rate: float  # of weight steps
    temperature: float
    train_loss: float  # mean cross-entropy of the Gumbel path
    train_top1: float  # percent, of the Gumbel path
    train_top5: float
    architecture_loss: float | None  # mean cross-entropy of architecture steps
    latency_loss: float | None  # mean of C(LAT) in architecture steps, without lambda
    expected_latency_ms: float | None  # LAT(alpha, beta), Eq. 6 with u = softmax(alpha), before scaling
    derived_latency_before_ms: float | None  # of the derived network, before elasticity-scaling
    derived_latency_after_ms: float | None
    target_ms: float | None
    alpha_entropy: float  # mean over layers, in nats
    val_top1: float  # percent, of the Gumbel path on the 20 %
    val_top5: float
    derived: dict[str, int | float | str]  # see `derived_columns`

    def row(self) -> dict[str, int | float | str | None]:
        """One cell a column."""
        values = dict(vars(self))
        return {**{name: value for name, value in values.items() if name != "derived"}, **self.derived}

    def metrics(self, operations: Sequence[str] = ()) -> dict[str, float]:
        """The numbers without the epoch they belong to; a layer's operation by its place in `operations`."""
        numbers = {name: self._number(value, operations) for name, value in self.row().items() if name != "epoch"}
        return {name: value for name, value in numbers.items() if value is not None}

    @staticmethod
    def _number(value: int | float | str | None, operations: Sequence[str]) -> int | float | None:
        if isinstance(value, str):
            return operations.index(value) if value in operations else None
        return value


def operation_names(space: Space) -> list[str]:
    """The names in the history's operation columns: the candidates, and skip."""
    return [*(candidate.name for candidate in space.candidates), SKIP]


def derived_columns(
    space: Space, derived: Derived, widths: Sequence[Sequence[int]], entropies: Sequence[float]
) -> dict[str, int | float | str]:
    """What is derived after an epoch, and how sure alpha is.

    Columns: `stage3_depth` (layers kept) of each stage; of each layer `stage3_layer1_op`, `stage3_layer1_width` and
    `stage3_layer1_entropy` (of alpha, nats), with sink-connecting also of the layers beyond the depth; in its rivals
    the operation of a layer that is not kept is `skip`, its width 0.
    """
    columns: dict[str, int | float | str] = {f"stage{stage}_depth": depth for stage, depth in derived.depths.items()}
    for i, layer in enumerate(searchable_layers(space)):
        name, operation = f"stage{layer.stage}_layer{layer.position}", derived.operations[i]
        columns[f"{name}_op"] = operation_names(space)[operation]
        columns[f"{name}_width"] = widths[i][operation] if operation < len(space.candidates) else 0
        columns[f"{name}_entropy"] = entropies[i]
    return columns


def write_history(history: Iterable[EpochRecord], path: str | Path) -> None:
    """One row an epoch, as CSV; without epochs the names of the columns that every search has."""
    rows = [record.row() for record in history]
    columns = list(rows[0]) if rows else [field.name for field in fields(EpochRecord) if field.name != "derived"]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
