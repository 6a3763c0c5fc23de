"""Training from the first epoch, or from the last checkpoint, to the end of the recipe."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tfnas.runtime.artifacts import atomic_path
from tfnas.runtime.errors import UserError
from tfnas.runtime.progress import track
from tfnas.runtime.schema import RecipeParams
from tfnas.runtime.seeding import derive_seed
from tfnas.train.loop import NonFiniteLossError, Stepper, evaluate, train_epoch
from tfnas.train.metrics import Metrics
from tfnas.train.recipe import learning_rate

Batch = TypeVar("Batch")
logger = logging.getLogger("tfnas.train")


class Loader(Sized, Protocol):
    """What `tfnas.data.make_loader` gives."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of an epoch."""


class Checkpoints(Protocol):
    """What `tfnas.runtime.checkpoints.CheckpointFolder` gives; a test can keep them in memory."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, state: dict[str, Any]) -> None: ...


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


@dataclass
class TrainResult:
    """What a training gave: one record an epoch, and the last epoch's validation."""

    history: list[EpochRecord] = field(default_factory=list)
    final: Metrics | None = None


def train(
    network: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    recipe: RecipeParams,
    *,
    name: str,
    device: torch.device,
    precision: str,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainResult:
    """Train `network` in place by the recipe (Appendix B).

    Each epoch is a function of the state before it and of its number alone, since it starts by seeding torch
    from (seed, name, epoch). So a training that goes on from a checkpoint ends, on a CPU, with the same bits.

    Args:
        name: of the job, e.g. `retrain/A`: in its random stream, on its progress bar and in errors.
        checkpoints: where to go on from and to save to after every epoch.
        on_epoch: called with every epoch's record, those of a checkpoint first.

    Raises:
        UserError: no whole training batch, or a loss that is not finite (names epoch and step).
    """
    if len(train_loader) == 0:
        raise UserError(f"{name}: batch_size {recipe.batch_size} is larger than the training set; lower it")
    stepper = Stepper(network, recipe, device=device, precision=precision)
    result = _resume(stepper, checkpoints, name)
    on_epoch = on_epoch or _ignore
    for record in result.history:
        on_epoch(record)
    first = len(result.history)
    batches = (recipe.epochs - first) * (len(train_loader) + len(val_loader))
    ticks = track(range(batches), label=name, total=batches)
    for epoch in range(first, recipe.epochs):
        torch.manual_seed(derive_seed(seed, name, epoch))
        train_loader.set_epoch(epoch)
        try:
            record, result.final = _run_epoch(stepper, train_loader, val_loader, epoch, ticks)
        except NonFiniteLossError as error:
            raise _diverged(error, name, epoch, recipe) from None
        result.history.append(record)
        if checkpoints is not None:
            checkpoints.save(_state(stepper, result))
        on_epoch(record)
        logger.info("%s: epoch %d of %d: top-1 %.2f %%", name, record.epoch, recipe.epochs, record.val_top1)
    next(ticks, None)  # the last log line
    return result


def _run_epoch(
    stepper: Stepper, train_loader: Loader, val_loader: Loader, epoch: int, ticks: Iterator[int]
) -> tuple[EpochRecord, Metrics]:
    """Train and validate once; the epoch's record and its validation."""
    start, steps = time.monotonic(), len(train_loader)
    rates = [learning_rate(epoch * steps + step, steps, stepper.recipe) for step in range(steps)]
    trained = train_epoch(stepper, _ticking(train_loader, ticks), rates)
    validated = evaluate(
        stepper.network, _ticking(val_loader, ticks), device=stepper.device, precision=stepper.precision
    )
    record = EpochRecord(
        epoch=epoch + 1,
        seconds=time.monotonic() - start,
        learning_rate=rates[-1],
        train_loss=trained.loss,
        train_top1=trained.top1_percent,
        val_loss=validated.loss,
        val_top1=validated.top1_percent,
    )
    return record, validated


def write_history(history: Iterable[EpochRecord], path: str | Path) -> None:
    """One row an epoch, as CSV."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(record) for record in history)


def _ignore(record: EpochRecord) -> None:
    pass


def _ticking(batches: Iterable[Batch], ticks: Iterator[int]) -> Iterator[Batch]:
    """The batches, each moving the job's one progress bar on."""
    for batch in batches:
        next(ticks, None)
        yield batch


def _state(stepper: Stepper, result: TrainResult) -> dict[str, Any]:
    assert result.final is not None
    history = [asdict(record) for record in result.history]
    return {"stepper": stepper.state_dict(), "history": history, "final": asdict(result.final)}


def _resume(stepper: Stepper, checkpoints: Checkpoints | None, name: str) -> TrainResult:
    state = checkpoints.load() if checkpoints is not None else None
    if state is None:
        return TrainResult()
    stepper.load_state_dict(state["stepper"])
    history = [EpochRecord(**record) for record in state["history"]]
    logger.info("%s: goes on after epoch %d", name, len(history))
    return TrainResult(history, Metrics(**state["final"]))


def _diverged(error: NonFiniteLossError, name: str, epoch: int, recipe: RecipeParams) -> UserError:
    return UserError(
        f"{name}: the loss is {error.value} at epoch {epoch + 1}, step {error.step};"
        f" lower learning_rate ({recipe.learning_rate}) or lengthen warmup_epochs ({recipe.warmup_epochs})"
    )
