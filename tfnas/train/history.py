"""history.csv: what a training was like, epoch by epoch."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tfnas.runtime.artifacts import atomic_path


@dataclass(frozen=True)
class EpochRecord:
    """One row of `history.csv`; accuracies in percent."""

    epoch: int  # counted from 1
    seconds: float
    learning_rate: float  # of the epoch's last step
    train_loss: float  # with label smoothing
    train_top1: float
    val_loss: float
    val_top1: float

    def metrics(self) -> dict[str, float]:
        """The numbers without the epoch they belong to."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}


def write_history(history: Iterable[EpochRecord], path: str | Path) -> None:
    """One row an epoch, as CSV."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(record) for record in history)
