"""Training from the first step, or from the last checkpoint, to the end of the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import RecipeParams
from tfnas.train.epoch_loop import Checkpoints, EpochLoop, Loader
from tfnas.train.history import EpochRecord, write_history
from tfnas.train.metrics import Metrics
from tfnas.train.stepper import Stepper

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
