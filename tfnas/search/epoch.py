"""One epoch of the search: weight and architecture steps, validation, elasticity-scaling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from tfnas.compute import distributed
from tfnas.data.images.loader import Batch, Loader
from tfnas.jobs.errors import NonFiniteLossError, UserError
from tfnas.latency import LatencyTable
from tfnas.search.params import SearchParams
from tfnas.search.result import EpochRecord, derived_columns
from tfnas.search.sampling import gumbel_noise, gumbel_path, second_path
from tfnas.search.scaling.elasticity_scaling import scale_widths
from tfnas.search.scaling.integer_ratio import scale_widths_by_integer_ratio
from tfnas.search.state import SearchState, learning_rate, temperature
from tfnas.search.steps import ArchitectureStep, Correct, Stepper, WeightStep

Result = TypeVar("Result")


class Latencies(NamedTuple):
    """The columns of a record that need a table and a target; all None in a warm-up that has neither."""

    expected_latency_ms: float | None = None
    derived_latency_before_ms: float | None = None
    derived_latency_after_ms: float | None = None
    target_ms: float | None = None


class EpochRunner:
    """Runs the epochs of a search on its state; the parts of one are methods, in the order of the paper.

    Args:
        table, target_ms: None in a warm-up, which needs neither.
    """

    def __init__(
        self,
        state: SearchState,
        train_loader: Loader,
        val_loader: Loader,
        table: LatencyTable | None,
        target_ms: float | None,
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

        Raises:
            UserError: a loss that is not finite.
        """
        start, searches = time.monotonic(), epoch >= self._params.warmup_epochs
        self._state.begin_epoch(epoch)
        stepper = Stepper(self._state, self._params, self._table, self._target_ms, self._precision)
        weight_steps, architecture_steps = self._train(stepper, epoch, generator, ticks)
        val_top1, val_top5 = self._validate(stepper, epoch, generator)
        latencies = self._scale(stepper, searches)
        if searches:
            self._note_ranking()
        strength = self._state.supernet.operation_logits().detach().log_softmax(-1)
        entropies = [float(torch.special.entr(row.exp()).sum()) for row in strength]
        train_top1, train_top5 = _percent([(taken.correct, taken.images) for taken, _ in weight_steps])
        return EpochRecord(
            epoch=epoch + 1,
            seconds=round(time.monotonic() - start, 3),
            seconds_per_weight_step=_mean([seconds for _, seconds in weight_steps]),
            seconds_per_architecture_step=_mean([seconds for _, seconds in architecture_steps]),
            learning_rate=learning_rate(epoch, self._params),
            temperature=temperature(epoch, self._params),
            train_loss=sum(taken.loss for taken, _ in weight_steps) / len(weight_steps),
            train_top1=train_top1,
            train_top5=train_top5,
            architecture_loss=_mean([taken.cross_entropy for taken, _ in architecture_steps]),
            latency_loss=_mean([taken.latency_loss for taken, _ in architecture_steps]),
            **latencies._asdict(),
            alpha_entropy=sum(entropies) / len(entropies),
            val_top1=val_top1,
            val_top5=val_top5,
            derived=self._derived_columns(entropies),
        )

    def latencies_of_warm_up(self) -> Latencies:
        """What a warm-up's epochs are worth by the table: alpha, beta and widths stay as they begin."""
        stepper = Stepper(self._state, self._params, self._table, self._target_ms, self._precision)
        return self._scale(stepper, searches=False)

    def _train(
        self, stepper: Stepper, epoch: int, generator: torch.Generator, ticks: Iterator[object]
    ) -> tuple[list[tuple[WeightStep, float]], list[tuple[ArchitectureStep, float]]]:
        """Weight steps on the 80 %, and between them architecture steps on the 20 %; each with its seconds."""
        weight_steps, architecture_steps = [], []
        tau, searches = temperature(epoch, self._params), epoch >= self._params.warmup_epochs
        architecture_batches = self._architecture_batches(epoch)
        set_epoch(self._train_loader, epoch)
        for step, batch in enumerate(self._train_loader):
            try:
                paths = self._sample(tau, searches, generator)
                weight_steps.append(_timed(stepper.weight_step, batch, paths))
                if searches and step % self._params.architecture.every == 0:
                    noise = gumbel_noise(stepper.supernet.alphas.shape, generator)
                    val_batch = next(architecture_batches)
                    architecture_steps.append(_timed(stepper.architecture_step, val_batch, tau, noise))
            except NonFiniteLossError as error:
                raise self._diverged(error, epoch, step) from None
            next(ticks, None)
        return weight_steps, architecture_steps

    def _sample(self, tau: float, searches: bool, generator: torch.Generator) -> list[Tensor]:
        """Bi-sampling: the Gumbel path and its rival; the Gumbel path alone in the warm-up (as the authors' code)."""
        alphas, rival = self._state.supernet.operation_logits(), self._params.second_path
        first = gumbel_path(alphas, tau, generator)
        if not searches or rival == "none":
            return [first]
        return [first, second_path(rival, alphas, first, tau, generator)]

    def _architecture_batches(self, epoch: int) -> Iterator[Batch]:
        """The 20 %, over and over, in another order each time."""
        needed = -(-len(self._train_loader) // self._params.architecture.every)
        rounds = -(-needed // len(self._val_loader))
        for again in range(rounds):
            set_epoch(self._val_loader, epoch * rounds + again)
            yield from self._val_loader

    def _validate(self, stepper: Stepper, epoch: int, generator: torch.Generator) -> tuple[float, float]:
        """Top-1 and top-5 in percent of Gumbel paths, one a batch, on the 20 % (Fig. 2c, f)."""
        set_epoch(self._val_loader, epoch)
        tau, logits = temperature(epoch, self._params), stepper.supernet.operation_logits()
        return _percent(
            [
                (
                    stepper.count_correct(batch, gumbel_path(logits, tau, generator)),
                    len(batch[1]) * distributed.group_size(),
                )
                for batch in self._val_loader
            ]
        )

    def _scale(self, stepper: Stepper, searches: bool) -> Latencies:
        """Elasticity-scaling of the derived network; its latency before and after."""
        if self._table is None or self._target_ms is None:
            return Latencies()
        supernet, wanted = self._state.supernet, self._params.elasticity_scaling
        expected_ms, derived = stepper.expected_latency_ms(), supernet.derive(self._name)
        if not searches or wanted is False:
            latency_ms = self._table.latency_ms(derived.architecture)
            return Latencies(expected_ms, latency_ms, latency_ms, self._target_ms)
        scale = scale_widths_by_integer_ratio if wanted == "integer_ratio" else scale_widths
        ranges = derived.width_ranges(supernet.space)
        result = scale(derived.architecture, self._table, self._target_ms, supernet.space, ranges=ranges)
        self._state.put_back(derived, result.architecture)
        return Latencies(expected_ms, result.latency_before_ms, result.latency_after_ms, self._target_ms)

    def _note_ranking(self) -> None:
        if self._state.stability is not None:
            self._state.stability.update(self._state.supernet.operation_logits())

    def _derived_columns(self, entropies: Sequence[float]) -> dict[str, int | float | str]:
        supernet = self._state.supernet
        return derived_columns(supernet.space, supernet.derive(self._name), supernet.widths(), entropies)

    def _diverged(self, error: NonFiniteLossError, epoch: int, step: int) -> UserError:
        return UserError(
            f"{self._name}: {error} at epoch {epoch + 1}, step {step + 1}; lower search.weights.learning_rate"
            f" ({self._params.weights.learning_rate}) or set device.precision to float32"
        )


def set_epoch(loader: Loader, epoch: int) -> None:
    """Choose order and augmentation of a loader's next pass, where it has `set_epoch`.

    Elsewhere, an order drawn from torch's global random state follows from the search's seed and the epoch as well.
    """
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)


def _timed(step: Callable[..., Result], *arguments: object) -> tuple[Result, float]:
    """What a step gives and its seconds; it waits for the device itself, to look at its loss."""
    start = time.perf_counter()
    return step(*arguments), time.perf_counter() - start


def _percent(counts: Sequence[tuple[Correct, int]]) -> tuple[float, float]:
    """Top-1 and top-5 over all (right images, images)."""
    images = sum(count for _, count in counts)
    return 100.0 * sum(c.top1 for c, _ in counts) / images, 100.0 * sum(c.top5 for c, _ in counts) / images


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
