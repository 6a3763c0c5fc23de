"""One epoch of the search: weight and architecture steps, validation, elasticity-scaling."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sized
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tfnas.latency import LatencyTable
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import SearchParams
from tfnas.search.elasticity_scaling import scale_widths
from tfnas.search.history import EpochRecord, derived_columns
from tfnas.search.integer_ratio_scaling import scale_widths_by_integer_ratio
from tfnas.search.sampling import gumbel_noise, gumbel_path, second_path
from tfnas.search.state import SearchState, learning_rate, temperature
from tfnas.search.steps import Batch, NonFiniteLossError, Stepper


class Loader(Sized, Protocol):
    """What `tfnas.data.make_loader` gives."""

    def __iter__(self) -> Iterator[Batch]: ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of an epoch."""


class _Trained(NamedTuple):
    """Means over an epoch's steps."""

    loss: float
    top1: float  # percent
    architecture_loss: float | None
    latency_loss: float | None


class EpochRunner:
    """Runs the epochs of a search on its state; the parts of one are methods, in the order of the paper."""

    def __init__(
        self,
        state: SearchState,
        train_loader: Loader,
        val_loader: Loader,
        table: LatencyTable,
        target_ms: float,
        params: SearchParams,
        precision: str,
        name: str,
    ) -> None:
        self._state, self._train_loader, self._val_loader = state, train_loader, val_loader
        self._table, self._target_ms, self._params = table, target_ms, params
        self._precision, self._name = precision, name

    def run(self, epoch: int, generator: torch.Generator, ticks: Iterator[object]) -> EpochRecord:
        """Train, search and scale (after the warm-up), and say how it went.

        Args:
            epoch: counted from 0.
            generator: of paths and Gumbel noise.
            ticks: of the progress bar, one taken a weight step.
        """
        start, params, supernet = time.monotonic(), self._params, self._state.supernet
        searches = epoch >= params.warmup_epochs
        self._state.begin_epoch(epoch)
        stepper = Stepper(self._state, params, self._table, self._target_ms, self._precision)
        trained = self._train(stepper, epoch, generator, ticks)
        val_top1 = self._validate(stepper, epoch, generator)
        before_ms, after_ms = self._scale(searches)
        strength = supernet.alphas.detach().log_softmax(-1)
        return EpochRecord(
            epoch=epoch + 1,
            learning_rate=learning_rate(epoch, params),
            temperature=temperature(epoch, params),
            train_loss=trained.loss,
            train_top1=trained.top1,
            architecture_loss=trained.architecture_loss,
            latency_loss=trained.latency_loss,
            expected_latency_ms=stepper.expected_latency_ms(),
            derived_latency_before_ms=before_ms,
            derived_latency_after_ms=after_ms,
            target_ms=self._target_ms,
            alpha_entropy=float(-(strength.exp() * strength).sum(-1).mean()),
            val_top1=val_top1,
            derived=derived_columns(supernet.space, supernet.derive(self._name), supernet.widths()),
            seconds=round(time.monotonic() - start, 3),
        )

    def _train(self, stepper: Stepper, epoch: int, generator: torch.Generator, ticks: Iterator[object]) -> _Trained:
        """Weight steps on the 80 %, and between them architecture steps on the 20 %."""
        weight_steps, architecture_steps = [], []
        tau, searches = temperature(epoch, self._params), epoch >= self._params.warmup_epochs
        architecture_batches = self._architecture_batches(epoch)
        self._train_loader.set_epoch(epoch)
        for step, batch in enumerate(self._train_loader):
            try:
                weight_steps.append(stepper.weight_step(batch, self._sample(tau, searches, generator)))
                if searches and step % self._params.architecture.every == 0:
                    noise = gumbel_noise(stepper.supernet.alphas.shape, generator)
                    architecture_steps.append(stepper.architecture_step(next(architecture_batches), tau, noise))
            except NonFiniteLossError as error:
                raise self._diverged(error, epoch, step) from None
            next(ticks, None)
        return _Trained(
            loss=sum(taken.loss for taken in weight_steps) / len(weight_steps),
            top1=100.0 * sum(taken.correct for taken in weight_steps) / sum(taken.images for taken in weight_steps),
            architecture_loss=_mean([taken.cross_entropy for taken in architecture_steps]),
            latency_loss=_mean([taken.latency_loss for taken in architecture_steps]),
        )

    def _sample(self, tau: float, searches: bool, generator: torch.Generator) -> list[Tensor]:
        """Bi-sampling: the Gumbel path and its rival; the Gumbel path alone in the warm-up (as the authors' code)."""
        alphas, rival = self._state.supernet.alphas, self._params.second_path
        first = gumbel_path(alphas, tau, generator)
        if not searches or rival == "none":
            return [first]
        return [first, second_path(rival, alphas, first, tau, generator)]

    def _architecture_batches(self, epoch: int) -> Iterator[Batch]:
        """The 20 %, over and over, in another order each time."""
        needed = -(-len(self._train_loader) // self._params.architecture.every)
        rounds = -(-needed // len(self._val_loader))
        for again in range(rounds):
            self._val_loader.set_epoch(epoch * rounds + again)
            yield from self._val_loader

    def _validate(self, stepper: Stepper, epoch: int, generator: torch.Generator) -> float:
        """Top-1 in percent of Gumbel paths, one a batch, on the 20 % (Fig. 2c, f)."""
        self._val_loader.set_epoch(epoch)
        tau = temperature(epoch, self._params)
        correct = count = 0
        for batch in self._val_loader:
            correct += stepper.count_correct(batch, gumbel_path(stepper.supernet.alphas, tau, generator))
            count += len(batch[1])
        return 100.0 * correct / count

    def _scale(self, searches: bool) -> tuple[float, float]:
        """Elasticity-scaling of the derived network; its latency before and after."""
        supernet, wanted = self._state.supernet, self._params.elasticity_scaling
        derived = supernet.derive(self._name)
        if not searches or wanted is False:
            latency_ms = self._table.latency_ms(derived.architecture)
            return latency_ms, latency_ms
        scale = scale_widths_by_integer_ratio if wanted == "integer_ratio" else scale_widths
        ranges = derived.width_ranges(supernet.space)
        result = scale(derived.architecture, self._table, self._target_ms, supernet.space, ranges=ranges)
        self._state.put_back(derived, result.architecture)
        return result.latency_before_ms, result.latency_after_ms

    def _diverged(self, error: NonFiniteLossError, epoch: int, step: int) -> UserError:
        return UserError(
            f"{self._name}: {error} at epoch {epoch + 1}, step {step + 1}; lower search.weights.learning_rate"
            f" ({self._params.weights.learning_rate}) or set device.precision to float32"
        )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
