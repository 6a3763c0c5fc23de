"""One epoch of the search: weight and architecture steps, validation, elasticity-scaling, evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from tfnas.data.images.loader import Batch, Loader
from tfnas.jobs.errors import NonFiniteLossError, UserError
from tfnas.search.constraint import Constraint
from tfnas.search.derivation.strongest import Derived
from tfnas.search.evaluation import Evaluation, evaluate, random_networks
from tfnas.search.result import EpochRecord, derived_columns
from tfnas.search.sampling import gumbel_noise, gumbel_path, second_path
from tfnas.search.scaling.elasticity_scaling import scale_widths, scale_widths_by_integer_ratio
from tfnas.search.state import SearchState, Setting, learning_rate, temperature
from tfnas.search.steps import ArchitectureStep, Correct, Stepper, WeightStep

Result = TypeVar("Result")


@dataclass(frozen=True)
class Loaders:
    """The images of a search, in batches of at least two.

    Attributes:
        train: the 80 % that train the weights.
        val: the 20 % that train alpha and beta.
        num_classes: labels are 0 to num_classes - 1; None counts them.
    """

    train: Loader
    val: Loader
    num_classes: int | None = None


class Latencies(NamedTuple):
    """The columns of a record that need a constraint; all None in a warm-up that has none."""

    expected_latency_ms: float | None = None
    derived_latency_before_ms: float | None = None
    derived_latency_after_ms: float | None = None
    target_ms: float | None = None


class Accuracies(NamedTuple):
    """The columns of a record on the 20 %, in percent."""

    validation: tuple[float, float]  # top-1 and top-5 of Gumbel paths
    evaluation: Evaluation


class Training(NamedTuple):
    """The steps of an epoch, each with its seconds."""

    weight_steps: list[tuple[WeightStep, float]]
    architecture_steps: list[tuple[ArchitectureStep, float]]


class EpochRunner:
    """Runs the epochs of a search on its state; the parts of one are methods, in the order of the paper.

    Args:
        constraint: None in a warm-up, which needs none.
    """

    def __init__(
        self, state: SearchState, loaders: Loaders, setting: Setting, constraint: Constraint | None = None
    ) -> None:
        self.state, self.loaders, self.setting = state, loaders, setting
        self._constraint, self._params = constraint, setting.params

    def run(self, epoch: int, ticks: Iterator[object]) -> EpochRecord:
        """Train, search and scale (after the warm-up), and say how it went.

        Args:
            epoch: counted from 0.
            ticks: of the progress bar, one taken per weight step.

        Raises:
            UserError: a loss that is not finite.
        """
        start, generator = time.monotonic(), self.setting.generator(epoch)
        self.state.begin_epoch(epoch)
        stepper = Stepper(self.state, self.setting, self._constraint)
        training = self._train(stepper, epoch, generator, ticks)
        validation = self._validate(stepper, epoch, generator)
        searches = self.setting.searches(epoch)
        derived = self._derive(searches=searches)
        latencies = self._scale(stepper, derived, searches=searches)
        if searches and self.state.stability is not None:
            self.state.stability.update(self.state.supernet.operation_logits())
        accuracies = Accuracies(validation, self._evaluate(stepper, epoch, derived))
        return self._record(epoch, start, training, accuracies, latencies, derived)

    def begin_after(self, warm_up: dict[str, object]) -> None:
        """Start from what a warm-up left, its records completed by the constraint: widths are as they began."""
        self.state.begin_after(warm_up)
        stepper = Stepper(self.state, self.setting, self._constraint)
        latencies = self._scale(stepper, self._derive(searches=False), searches=False)
        self.state.history = [replace(record, **latencies._asdict()) for record in self.state.history]

    def _train(self, stepper: Stepper, epoch: int, generator: torch.Generator, ticks: Iterator[object]) -> Training:
        """Weight steps on the 80 %, and between them architecture steps on the 20 %."""
        training, tau = Training([], []), temperature(epoch, self._params)
        searches, every = self.setting.searches(epoch), self._params.architecture.every
        architecture_batches = self._architecture_batches(epoch)
        set_epoch(self.loaders.train, epoch)
        for step, batch in enumerate(self.loaders.train):
            try:
                paths = self._sample(tau, searches, generator)
                training.weight_steps.append(_timed(stepper.weight_step, batch, paths))
                if searches and step % every == 0:
                    noise = gumbel_noise(stepper.supernet.alphas.shape, generator)
                    val_batch = next(architecture_batches)
                    training.architecture_steps.append(_timed(stepper.architecture_step, val_batch, tau, noise))
            except NonFiniteLossError as error:
                raise self._diverged(error, epoch, step) from None
            next(ticks, None)
        return training

    def _sample(self, tau: float, searches: bool, generator: torch.Generator) -> list[Tensor]:
        """Bi-sampling: the Gumbel path and a second one; in the warm-up the first alone (as in the authors' code)."""
        alphas, kind = self.state.supernet.operation_logits(), self._params.second_path
        first = gumbel_path(alphas, tau, generator)
        if not searches or kind == "none":
            return [first]
        return [first, second_path(kind, alphas, first, tau, generator)]

    def _architecture_batches(self, epoch: int) -> Iterator[Batch]:
        """The 20 %, over and over, in another order each time."""
        needed = -(-len(self.loaders.train) // self._params.architecture.every)
        rounds = -(-needed // len(self.loaders.val))
        for again in range(rounds):
            set_epoch(self.loaders.val, epoch * rounds + again)
            yield from self.loaders.val

    def _validate(self, stepper: Stepper, epoch: int, generator: torch.Generator) -> tuple[float, float]:
        """Top-1 and top-5 in percent of Gumbel paths, one per batch, on the 20 % (Fig. 2c, f)."""
        set_epoch(self.loaders.val, epoch)
        tau, logits = temperature(epoch, self._params), stepper.supernet.operation_logits()
        counts = list[tuple[Correct, int]]()
        for batch in self.loaders.val:
            correct = stepper.count_correct(batch, gumbel_path(logits, tau, generator))
            counts.append((correct, stepper.batch_size(batch)))
        return _percent(counts)

    def _derive(self, *, searches: bool) -> Derived:
        """The network that the search would end with now, by `derive.within`; in the warm-up the strongest."""
        if not searches:
            return self.state.supernet.derive(self.setting.name)
        return self.state.supernet.derive(self.setting.name, self._constraint, self.setting.within)

    def _evaluate(self, stepper: Stepper, epoch: int, derived: Derived) -> Evaluation:
        """Top-1 of the derived network and of random ones, on the first batches of those that `_validate` takes."""
        wanted, generator = self._params.evaluation, self.setting.evaluation_generator(epoch)
        others = random_networks(self.state.supernet, wanted.random_paths, generator)
        set_epoch(self.loaders.val, epoch)
        return evaluate(stepper, islice(self.loaders.val, wanted.batches), derived, others)

    def _scale(self, stepper: Stepper, derived: Derived, *, searches: bool) -> Latencies:
        """Elasticity-scaling of the derived network (Algorithm 1); its cost before and after."""
        constraint, wanted = self._constraint, self._params.elasticity_scaling
        if constraint is None:
            return Latencies()
        expected = stepper.expected_cost()
        if not searches or wanted is False:
            value = constraint.cost.value(derived.architecture)
            return Latencies(expected, value, value, constraint.limit)
        scale = scale_widths_by_integer_ratio if wanted == "integer_ratio" else scale_widths
        result = scale(derived.architecture, constraint, ranges=derived.width_ranges(constraint.space))
        self.state.apply_widths(derived, result.architecture)
        return Latencies(expected, result.cost_before, result.cost_after, constraint.limit)

    def _record(
        self,
        epoch: int,
        start: float,
        training: Training,
        accuracies: Accuracies,
        latencies: Latencies,
        derived: Derived,
    ) -> EpochRecord:
        weight_steps, architecture_steps = training
        entropies = self._entropies()
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
            latency_loss=_mean([taken.cost_loss for taken, _ in architecture_steps]),
            **latencies._asdict(),
            alpha_entropy=sum(entropies) / len(entropies),
            val_top1=accuracies.validation[0],
            val_top5=accuracies.validation[1],
            **accuracies.evaluation._asdict(),
            derived=derived_columns(self.state.supernet.space, derived, self.state.supernet.widths(), entropies),
        )

    def _entropies(self) -> list[float]:
        """Of each layer's alpha, in nats."""
        strength = self.state.supernet.operation_logits().detach().log_softmax(-1)
        return [float(torch.special.entr(row.exp()).sum()) for row in strength]

    def _diverged(self, error: NonFiniteLossError, epoch: int, step: int) -> UserError:
        return UserError(
            f"{self.setting.name}: {error} at epoch {epoch + 1}, step {step + 1}; lower search.weights.learning_rate"
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
    """Top-1 and top-5 over all (correct images, images)."""
    images = sum(count for _, count in counts)
    return 100.0 * sum(c.top1 for c, _ in counts) / images, 100.0 * sum(c.top5 for c, _ in counts) / images


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
