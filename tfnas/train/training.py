"""`train`: a network trained by the recipe; and checkpoints shared by the processes of one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn

from tfnas.compute import distributed
from tfnas.data.images.loader import ResumableLoader
from tfnas.jobs.checkpoints import CheckpointFolder, Checkpoints
from tfnas.jobs.errors import UserError
from tfnas.train.loop import EpochLoop
from tfnas.train.metrics import Metrics, TrainingEpoch
from tfnas.train.params import RecipeParams
from tfnas.train.step import TrainingStepper


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training: one record per epoch, and the last epoch's validation."""

    history: list[TrainingEpoch]
    final: Metrics | None


def train(
    network: nn.Module,
    train_loader: ResumableLoader,
    val_loader: ResumableLoader,
    recipe: RecipeParams,
    *,
    name: str,
    device: torch.device,
    precision: str,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[TrainingEpoch], None] | None = None,
) -> TrainResult:
    """Train `network` in place by the recipe (Appendix B).

    Each step is a function of the state before it and of its number alone, since it starts by seeding torch
    from (seed, name, epoch, step, process). So a training resumed from a checkpoint, even in the middle of an epoch,
    ends with the same bits on a CPU.

    Args:
        train_loader: batches of `batch_size / accumulate` images, over all processes; an incomplete last batch is
            dropped.
        name: of the job, e.g. `retrain/A`: part of its random streams, its progress bar and its errors.
        checkpoints: where to resume from and to save to, after every epoch and every `checkpoint_every_steps`; the
            same in all processes, of which only the first saves.
        on_epoch: called with every epoch's record, those of a checkpoint first.

    Raises:
        UserError: no whole training batch, or a loss that is not finite (names epoch and step).
    """
    if len(train_loader) < recipe.accumulate:
        raise UserError(f"{name}: batch_size {recipe.batch_size} is larger than the training set; lower it")
    stepper = TrainingStepper(network, recipe, device=device, precision=precision)
    loop = EpochLoop(stepper, train_loader, val_loader, name=name, seed=seed, checkpoints=checkpoints)
    progress = loop.run(on_epoch or _ignore)
    if stepper.evaluated is not network:
        network.load_state_dict(stepper.evaluated.state_dict())
    return TrainResult(progress.history, progress.final)


def _ignore(record: TrainingEpoch) -> None:
    pass


class SharedCheckpoints:
    """A `CheckpointFolder` that only the first process opens, so that the processes need not share a disk.

    Args:
        open_folder: called in the first process.
    """

    def __init__(self, open_folder: Callable[[], CheckpointFolder]) -> None:
        self._open = open_folder
        self._folder: CheckpointFolder | None = None

    def __enter__(self) -> SharedCheckpoints:
        if distributed.rank() == 0:
            self._folder = self._open().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.__exit__(kind, error, trace)

    def load(self) -> dict[str, Any] | None:
        """The first process's newest state, in all of them; None when there is none."""
        state = self._folder.load() if self._folder is not None else None
        return distributed.gather(state)[0]

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; in the first process only."""
        assert self._folder is not None
        self._folder.save(state)

    def discard(self) -> None:
        """Remove all checkpoints; in the first process only."""
        assert self._folder is not None
        self._folder.discard()
