"""Loss and accuracies of a pass through the data; their record per epoch, history.csv; and what metrics.json says."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tfnas.compute import distributed
from tfnas.jobs.artifacts import write_csv

if TYPE_CHECKING:
    from tfnas.train.loop import TrainResult

MIN_CLASSES_FOR_TOP5 = 5
SEED_COLUMNS = ("seed", "top1_percent", "top5_percent", "loss")


@dataclass(frozen=True)
class Metrics:
    """Means over images."""

    loss: float
    top1_percent: float
    top5_percent: float | None  # None with fewer than five classes


class MetricSums:
    """Sums over batches, kept on the device so that no step has to wait for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.images = 0
        self.num_classes = 0
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros(2, dtype=torch.int64, device=device)  # within the first 1, within the first 5

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Add a batch: (N, K) logits, (N,) labels, their mean loss."""
        images, self.num_classes = logits.shape
        self.images += images
        self._loss += loss.detach().double() * images
        ranked = logits.detach().float().topk(min(5, self.num_classes), dim=1).indices  # (N, 5), best first
        hits = ranked == labels[:, None]
        self._correct += torch.stack((hits[:, 0].sum(), hits.sum()))

    def over_processes(self) -> MetricSums:
        """The sums over all processes, in each of them."""
        if not distributed.is_active():
            return self
        whole = MetricSums(self._loss.device)
        counts = torch.tensor([self.images, self.num_classes, self.num_classes > 0], device=self._loss.device)
        whole.images, classes, filled = distributed.total(counts).tolist()
        whole.num_classes = classes // max(filled, 1)  # a process may have had no batch
        whole._loss, whole._correct = distributed.total(self._loss), distributed.total(self._correct)
        return whole

    def result(self) -> Metrics:
        assert self.images > 0, "no batch was added"
        top1, top5 = (100.0 * correct / self.images for correct in self._correct.tolist())
        has_top5 = self.num_classes >= MIN_CLASSES_FOR_TOP5
        return Metrics(self._loss.item() / self.images, top1, top5 if has_top5 else None)

    def state_dict(self) -> dict[str, Any]:
        """Plain values: doubles and integers, which keep every bit."""
        return {
            "images": self.images,
            "num_classes": self.num_classes,
            "loss": self._loss.item(),
            "correct": self._correct.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images, self.num_classes = state["images"], state["num_classes"]
        self._loss.fill_(state["loss"])
        self._correct.copy_(torch.tensor(state["correct"]))


@dataclass(frozen=True)
class TrainingEpoch:
    """One row of `history.csv`; accuracies in percent."""

    epoch: int  # counted from 1
    seconds: float
    learning_rate: float  # of the epoch's last step
    train_loss: float  # with label smoothing, and the teacher's part where there is one
    train_top1: float
    val_loss: float
    val_top1: float

    def metrics(self) -> dict[str, float]:
        """The numbers without the epoch they belong to."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}


def write_training_history(history: Iterable[TrainingEpoch], path: str | Path) -> None:
    """One row per epoch, as CSV."""
    write_csv(path, [column.name for column in fields(TrainingEpoch)], map(asdict, history))


def write_seeds(finals: Sequence[Metrics], path: str | Path) -> None:
    """Write CSV: seed (counted from 1), top1_percent, top5_percent (empty with fewer than five classes), loss."""
    rows = [{"seed": number, **asdict(final)} for number, final in enumerate(finals, start=1)]
    write_csv(path, SEED_COLUMNS, rows)


def seeds_metrics(finished: Sequence[TrainResult]) -> dict[str, float]:
    """How many trainings, mean and sample standard deviation of their top-1; empty for one."""
    top1 = [result.final.top1_percent for result in finished if result.final is not None]
    if len(top1) < 2:
        return {}
    return {
        "seeds": len(top1),
        "top1_mean_percent": statistics.fmean(top1),
        "top1_std_percent": statistics.stdev(top1),
    }


def final_metrics(result: TrainResult, size: Mapping[str, int]) -> dict[str, float]:
    """Validation of the weights that are written, their epoch, and the network's size."""
    final = result.final
    assert final is not None
    top5 = {} if final.top5_percent is None else {"top5_percent": final.top5_percent}
    return {
        "top1_percent": final.top1_percent,
        **top5,
        "loss": final.loss,
        "epochs": len(result.history),
        "kept_epoch": result.kept_epoch,
        **size,
    }
