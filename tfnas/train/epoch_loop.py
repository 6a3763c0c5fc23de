"""The epochs of one training: from its start, or from a checkpoint, to the end of the recipe."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Protocol, TypeVar

import torch

from tfnas.compute import distributed
from tfnas.compute.seeding import derive_seed
from tfnas.runtime.errors import UserError
from tfnas.runtime.progress import track
from tfnas.train.history import EpochRecord
from tfnas.train.loop import LossWatch, NonFiniteLossError, evaluate
from tfnas.train.metrics import MetricSums
from tfnas.train.progress import Progress
from tfnas.train.recipe import learning_rate
from tfnas.train.stepper import Batch, Stepper

Item = TypeVar("Item")
logger = logging.getLogger("tfnas.train")


class Loader(Sized, Protocol):
    """What `tfnas.data.make_loader` gives."""

    def __iter__(self) -> Iterator[Batch]: ...

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the order and the augmentation of an epoch, and the batch to start with."""


class Checkpoints(Protocol):
    """What `tfnas.runtime.checkpoints.CheckpointFolder` gives; a test can keep them in memory."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, state: dict[str, Any]) -> None: ...


class EpochLoop:
    """One training under way, of the name that stands in its random stream, on its progress bar and in errors."""

    def __init__(
        self,
        stepper: Stepper,
        train_loader: Loader,
        val_loader: Loader,
        *,
        name: str,
        seed: int,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.stepper, self.recipe = stepper, stepper.recipe
        self.train_loader, self.val_loader = train_loader, val_loader
        self.name, self.seed, self.checkpoints = name, seed, checkpoints
        self.steps = len(train_loader) // self.recipe.accumulate  # of an epoch
        self.progress = Progress(MetricSums(stepper.device))

    def run(self, on_epoch: Callable[[EpochRecord], None]) -> Progress:
        """To the end of the recipe."""
        progress = self.progress
        self._resume()
        for record in progress.history:
            on_epoch(record)
        ticks = self._ticks()
        while progress.epoch < self.recipe.epochs:
            try:
                self.train_epoch(ticks)
            except NonFiniteLossError as error:
                raise self._diverged(error) from None
            record = self._finish_epoch(ticks)
            self._save()
            on_epoch(record)
            logger.info(
                "%s: epoch %d of %d: top-1 %.2f %%", self.name, record.epoch, self.recipe.epochs, record.val_top1
            )
        next(ticks, None)  # the last log line
        return progress

    def train_epoch(self, ticks: Iterator[int]) -> None:
        """The steps of the epoch under way that are not done yet."""
        progress, accumulate = self.progress, self.recipe.accumulate
        watch, start = LossWatch(progress.step), time.monotonic() - progress.seconds
        self.stepper.train_mode()
        self.train_loader.set_epoch(progress.epoch, start=progress.step * accumulate)
        parts = _ticking(self.train_loader, ticks)
        for step in range(progress.step, self.steps):
            batch = list(itertools.islice(parts, accumulate))
            torch.manual_seed(derive_seed(self.seed, self.name, progress.epoch, step, distributed.rank()))
            computed = self.stepper.step(batch, self._rate(step))
            for part in computed:
                progress.sums.add(*part)
            watch.add(torch.stack([part.loss for part in computed]).mean())
            progress.step, progress.seconds = step + 1, time.monotonic() - start
            if self._is_checkpoint(progress.step):
                watch.check()
                self._save()
        watch.check()

    def _finish_epoch(self, ticks: Iterator[int]) -> EpochRecord:
        """Validate, and note the epoch."""
        progress, stepper, start = self.progress, self.stepper, time.monotonic()
        stepper.share_buffers()
        val_batches = _ticking(self.val_loader, ticks)
        validated = evaluate(stepper.evaluated, val_batches, device=stepper.device, precision=stepper.precision)
        trained = progress.sums.over_processes().result()
        record = EpochRecord(
            epoch=progress.epoch + 1,
            seconds=progress.seconds + time.monotonic() - start,
            learning_rate=self._rate(self.steps - 1),
            train_loss=trained.loss,
            train_top1=trained.top1_percent,
            val_loss=validated.loss,
            val_top1=validated.top1_percent,
        )
        progress.finish_epoch(record, validated, MetricSums(stepper.device))
        return record

    def _rate(self, step: int) -> float:
        return learning_rate(self.progress.epoch * self.steps + step, self.steps, self.recipe)

    def _ticks(self) -> Iterator[int]:
        """The job's one progress bar: a tick a batch that is still to come."""
        epochs = self.recipe.epochs - self.progress.epoch
        done = self.progress.step * self.recipe.accumulate
        batches = epochs * (self.steps * self.recipe.accumulate + len(self.val_loader)) - done
        return track(range(batches), label=self.name, total=batches)

    def _is_checkpoint(self, step: int) -> bool:
        every = self.recipe.checkpoint_every_steps
        return every > 0 and step % every == 0 and step < self.steps

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        progress = self.progress.state_dict()
        if distributed.rank() == 0:
            self.checkpoints.save({"stepper": self.stepper.state_dict(), "progress": progress})

    def _resume(self) -> None:
        state = self.checkpoints.load() if self.checkpoints is not None else None
        if state is None:
            return
        self.stepper.load_state_dict(state["stepper"])
        self.progress.load_state_dict(state["progress"])
        logger.info("%s: goes on after epoch %d, step %d", self.name, self.progress.epoch, self.progress.step)

    def _diverged(self, error: NonFiniteLossError) -> UserError:
        recipe = self.recipe
        return UserError(
            f"{self.name}: the loss is {error.value} at epoch {self.progress.epoch + 1}, step {error.step};"
            f" lower learning_rate ({recipe.learning_rate}) or lengthen warmup_epochs ({recipe.warmup_epochs})"
        )


def _ticking(batches: Iterable[Item], ticks: Iterator[int]) -> Iterator[Item]:
    """The batches, each moving the job's one progress bar on."""
    for batch in batches:
        next(ticks, None)
        yield batch
