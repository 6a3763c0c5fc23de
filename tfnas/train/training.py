"""Training from the first step, or from the last checkpoint, to the end of the recipe.

The checkpoints of a job of several processes: the first reads and writes them for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn

from tfnas.compute import distributed
from tfnas.jobs.checkpoints import CheckpointFolder
from tfnas.jobs.errors import UserError
from tfnas.train.loop import Checkpoints, EpochLoop, Loader
from tfnas.train.metrics import EpochRecord, Metrics, write_history
from tfnas.train.params import RecipeParams
from tfnas.train.step import Stepper

__all__ = ["Checkpoints", "EpochRecord", "Loader", "TrainResult", "train", "write_history"]


@dataclass(frozen=True)
class TrainResult:
    """What a training gave: one record an epoch, and the last epoch's validation."""

    history: list[EpochRecord]
    final: Metrics | None


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

    Each step is a function of the state before it and of its number alone, since it starts by seeding torch
    from (seed, name, epoch, step, process). So a training that goes on from a checkpoint, also in the middle of an
    epoch, ends on a CPU with the same bits.

    Args:
        train_loader: batches of `batch_size / accumulate` images, over all processes; a remainder that makes no
            whole batch is left out.
        name: of the job, e.g. `retrain/A`: in its random stream, on its progress bar and in errors.
        checkpoints: where to go on from and to save to, after every epoch and every `checkpoint_every_steps`; the
            same in all processes, of which the first alone saves.
        on_epoch: called with every epoch's record, those of a checkpoint first.

    Raises:
        UserError: no whole training batch, or a loss that is not finite (names epoch and step).
    """
    if len(train_loader) < recipe.accumulate:
        raise UserError(f"{name}: batch_size {recipe.batch_size} is larger than the training set; lower it")
    stepper = Stepper(network, recipe, device=device, precision=precision)
    loop = EpochLoop(stepper, train_loader, val_loader, name=name, seed=seed, checkpoints=checkpoints)
    progress = loop.run(on_epoch or _ignore)
    if stepper.evaluated is not network:
        network.load_state_dict(stepper.evaluated.state_dict())
    return TrainResult(progress.history, progress.final)


def _ignore(record: EpochRecord) -> None:
    pass


class SharedCheckpoints:
    """A `CheckpointFolder` that the first process alone opens, so that they need not share a disk.

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
        """The first process's newest state, in each of them; None when there is none."""
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
