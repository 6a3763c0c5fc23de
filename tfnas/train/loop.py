"""`train`: a network trained by the recipe, epoch by epoch, from its start or from a checkpoint."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.compute import distributed
from tfnas.compute.devices import autocast
from tfnas.compute.seeding import derive_seed
from tfnas.data.images.loader import Batch, ResumableLoader
from tfnas.jobs.checkpoints import Checkpoints
from tfnas.jobs.errors import NonFiniteLossError, UserError
from tfnas.jobs.progress import track
from tfnas.train.distillation import Distillation
from tfnas.train.metrics import Metrics, MetricSums, TrainingEpoch
from tfnas.train.params import RecipeParams
from tfnas.train.step import TrainingStepper, step_learning_rate, to_device

CHECK_LOSS_EVERY = 20  # steps; reading a loss makes the CPU wait for the GPU
Item = TypeVar("Item")
Loaders = tuple[ResumableLoader, ResumableLoader]  # of training and of validation

logger = logging.getLogger("tfnas.train")


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training: one record per epoch, and the validation of the epoch whose weights are kept.

    Attributes:
        kept_epoch: counted from 1; the last, or with `keep: best` the first of the highest top-1.
    """

    history: list[TrainingEpoch]
    final: Metrics | None
    kept_epoch: int


@dataclass(frozen=True)
class Setting:
    """What a training is besides its network, images and recipe.

    Attributes:
        name: of the job, e.g. `retrain/A`: part of its random streams, its progress bar and its errors.
    """

    name: str
    device: torch.device
    precision: str
    seed: int


def train(
    network: nn.Module,
    loaders: Loaders,
    recipe: RecipeParams,
    setting: Setting,
    *,
    distillation: Distillation | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[TrainingEpoch], None] | None = None,
) -> TrainResult:
    """Train `network` in place by the recipe (Appendix B), and leave it with the weights of the epoch to keep.

    Each step is a function of the state before it and of its number alone, since it starts by seeding torch
    from (seed, name, epoch, step, process). So a training resumed from a checkpoint, even in the middle of an epoch,
    ends with the same bits on a CPU.

    Args:
        loaders: of training batches of `batch_size / accumulate` images over all processes, an incomplete last one
            dropped; and of validation batches.
        distillation: from a teacher, where there is one.
        checkpoints: where to resume from and to save to, after every epoch and every `checkpoint_every_steps`; the
            same in all processes, of which only the first saves.
        on_epoch: called with every epoch's record, those of a checkpoint first.

    Raises:
        UserError: no whole training batch, or a loss that is not finite (names epoch and step).
    """
    if len(loaders[0]) < recipe.accumulate:
        raise UserError(f"{setting.name}: batch_size {recipe.batch_size} is larger than the training set; lower it")
    stepper = TrainingStepper(
        network, recipe, device=setting.device, precision=setting.precision, distillation=distillation
    )
    loop = EpochLoop(stepper, loaders, setting, checkpoints)
    progress = loop.run(on_epoch or _ignore)
    if progress.kept is not None:
        network.load_state_dict(progress.kept)
    elif stepper.evaluated is not network:
        network.load_state_dict(stepper.evaluated.state_dict())
    return TrainResult(progress.history, progress.final, progress.kept_epoch)


def _ignore(record: TrainingEpoch) -> None:
    pass


class EpochLoop:
    """A training in progress."""

    def __init__(
        self, stepper: TrainingStepper, loaders: Loaders, setting: Setting, checkpoints: Checkpoints | None
    ) -> None:
        self.stepper, self.recipe = stepper, stepper.recipe
        self.train_loader, self.val_loader = loaders
        self.name, self.seed, self.checkpoints = setting.name, setting.seed, checkpoints
        self.steps = len(self.train_loader) // self.recipe.accumulate  # of an epoch
        self.progress = TrainingProgress(MetricSums(stepper.device))

    def run(self, on_epoch: Callable[[TrainingEpoch], None]) -> TrainingProgress:
        """Train to the end of the recipe."""
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
        """The remaining steps of the current epoch."""
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

    def _finish_epoch(self, ticks: Iterator[int]) -> TrainingEpoch:
        """Validate, and record the epoch."""
        progress, stepper, start = self.progress, self.stepper, time.monotonic()
        stepper.share_buffers()
        val_batches = _ticking(self.val_loader, ticks)
        validated = evaluate(stepper.evaluated, val_batches, device=stepper.device, precision=stepper.precision)
        trained = progress.sums.over_processes().result()
        record = TrainingEpoch(
            epoch=progress.epoch + 1,
            seconds=progress.seconds + time.monotonic() - start,
            learning_rate=self._rate(self.steps - 1),
            train_loss=trained.loss,
            train_top1=trained.top1_percent,
            val_loss=validated.loss,
            val_top1=validated.top1_percent,
        )
        progress.finish_epoch(record, MetricSums(stepper.device))
        if self.recipe.keep == "last":
            progress.keep(validated, None)
        elif progress.final is None or validated.top1_percent > progress.final.top1_percent:
            progress.keep(validated, _copied(stepper.evaluated.state_dict()))
        return record

    def _rate(self, step: int) -> float:
        return step_learning_rate(self.progress.epoch * self.steps + step, self.steps, self.recipe)

    def _ticks(self) -> Iterator[int]:
        """The job's one progress bar: a tick for each batch that is still to come."""
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
        logger.info("%s: resumes after epoch %d, step %d", self.name, self.progress.epoch, self.progress.step)

    def _diverged(self, error: NonFiniteLossError) -> UserError:
        recipe = self.recipe
        return UserError(
            f"{self.name}: {error} at epoch {self.progress.epoch + 1}, step {error.step};"
            f" lower learning_rate ({recipe.learning_rate}) or lengthen warmup_epochs ({recipe.warmup_epochs})"
        )


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, which later steps leave alone."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def _ticking(batches: Iterable[Item], ticks: Iterator[int]) -> Iterator[Item]:
    """The batches, each advancing the job's progress bar."""
    for batch in batches:
        next(ticks, None)
        yield batch


@dataclass
class TrainingProgress:
    """How far a training has come: finished epochs, and the finished steps of the current one.

    Attributes:
        history: one record per finished epoch.
        final: the validation of the epoch whose weights are to be kept.
        kept_epoch: that epoch, counted from 1; 0 before the first.
        kept: its weights, the same in all processes; None where the last epoch's are kept.
        step: finished steps of the current epoch.
        seconds: the time that they took.
        sums: over this process's training batches in those steps.
    """

    sums: MetricSums
    history: list[TrainingEpoch] = field(default_factory=list)
    final: Metrics | None = None
    kept_epoch: int = 0
    kept: dict[str, Tensor] | None = None
    step: int = 0
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return len(self.history)

    def finish_epoch(self, record: TrainingEpoch, sums: MetricSums) -> None:
        """Record a finished epoch; `sums` are the empty ones of the next."""
        self.history.append(record)
        self.step, self.seconds, self.sums = 0, 0.0, sums

    def keep(self, validated: Metrics, weights: dict[str, Tensor] | None) -> None:
        """Keep the epoch that has just finished."""
        self.final, self.kept_epoch, self.kept = validated, self.epoch, weights

    def state_dict(self) -> dict[str, Any]:
        """Plain values and the kept weights, including the sums of all processes, which must all call this."""
        return {
            "history": [asdict(record) for record in self.history],
            "final": None if self.final is None else asdict(self.final),
            "kept_epoch": self.kept_epoch,
            "kept": self.kept,
            "step": self.step,
            "seconds": self.seconds,
            "sums": distributed.gather(self.sums.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = [TrainingEpoch(**record) for record in state["history"]]
        self.final = None if state["final"] is None else Metrics(**state["final"])
        self.kept_epoch, self.kept = state["kept_epoch"], state["kept"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.sums.load_state_dict(state["sums"][distributed.rank()])


class LossWatch:
    """Looks for a non-finite loss every `CHECK_LOSS_EVERY` steps, and when asked.

    Args:
        done: steps of the epoch that were finished before.
    """

    def __init__(self, done: int = 0) -> None:
        self._checked = done
        self._pending: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        self._pending.append(loss)
        if len(self._pending) == CHECK_LOSS_EVERY:
            self.check()

    def check(self) -> None:
        """Raise NonFiniteLossError for the first bad loss since the last check."""
        values = torch.stack(self._pending).tolist() if self._pending else []
        for step, value in enumerate(values, start=self._checked + 1):
            if not math.isfinite(value):
                raise NonFiniteLossError(value, step=step)
        self._checked += len(values)
        self._pending.clear()


def evaluate(network: nn.Module, batches: Iterable[Batch], *, device: torch.device, precision: str) -> Metrics:
    """Mean cross-entropy (without label smoothing), top-1 and top-5 over all images, a smaller last batch included.

    Of several processes, each evaluates its own batches and all get the numbers of all images.
    """
    sums = MetricSums(device)
    evaluate_sums(network, batches, sums, precision=precision)
    return sums.over_processes().result()


@torch.no_grad()
def evaluate_sums(network: nn.Module, batches: Iterable[Batch], sums: MetricSums, *, precision: str) -> None:
    """Add this process's batches to the sums, on the device of both the sums and the network."""
    network.eval()
    for batch in batches:
        images, labels = to_device(*batch, sums.device)
        with autocast(sums.device, precision):
            logits = network(images)
            loss = functional.cross_entropy(logits, labels)
        sums.add(logits, labels, loss)
