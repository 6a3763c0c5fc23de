"""Step times, measured on this device with the code of the stages, in about half a minute."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor, nn

from tfnas.cli.estimate.schedule import StepTimes
from tfnas.compute.devices import open_device
from tfnas.data.images.decoding import BrokenImageError
from tfnas.data.images.stores import Store
from tfnas.data.images.transforms import Transform, eval_transform, train_transform
from tfnas.data.params import AugmentationParams
from tfnas.data.ranking import build_ranking_network, count_correct, cross_entropy
from tfnas.latency import OperationKey
from tfnas.search.constraint import Constraint
from tfnas.search.cost import Cost
from tfnas.search.evaluation import random_networks
from tfnas.search.sampling import gumbel_noise, gumbel_path, second_path
from tfnas.search.scaling.elasticity_scaling import scale_widths
from tfnas.search.state import SearchState, Setting
from tfnas.search.steps import Stepper
from tfnas.space import Architecture, Space, build_network
from tfnas.stages.params import Params
from tfnas.train.distillation import Teacher, read_teacher
from tfnas.train.loop import evaluate
from tfnas.train.params import NO_TEACHER, RANKING
from tfnas.train.step import TrainingStepper

IMAGES = 24  # decoded to measure that
ENOUGH_SECONDS, MOST_CALLS = 0.6, 5  # of one kind of step
LONG_SECONDS = 4.0  # a first call of such a length, in which setting up is nothing, is not repeated
STARTED = "import torch, tfnas.tracking.store, mlflow, tfnas.stages.retrain, tfnas.search.loop"


class Pictures:
    """Some of the user's pictures, decoded, and what that took."""

    def __init__(self, paths: Sequence[str], store: Store) -> None:
        chosen = paths[:: max(1, len(paths) // IMAGES)][:IMAGES]
        self.tensors: list[Tensor] = []
        seconds = []
        for path in chosen:
            start = time.perf_counter()
            try:
                self.tensors.append(store.read(path))
            except BrokenImageError:  # a broken image; prepare_data names it
                continue
            seconds.append(time.perf_counter() - start)
        self.decode = fmean(seconds[1:] or seconds) if seconds else 0.0  # the first one loads a library
        self.mean_bytes = fmean([picture.numel() for picture in self.tensors]) if self.tensors else 0.0

    def transform(self, transform: Transform) -> float:
        """Seconds of an image from its pixels to its place in a batch."""
        if not self.tensors:
            return 0.0

        def once() -> None:
            views = [transform.view(picture, Random(0)) for picture in self.tensors]
            transform.finish(torch.stack([view.pixels for view in views]), [view.colors for view in views])

        return seconds_of(once) / len(self.tensors)


def seconds_of(call: Callable[[], object], *, device: torch.device | None = None) -> float:
    """The median of some calls after a first one; of a long call, that one's."""
    from tfnas.compute.devices import synchronize

    def timed() -> float:
        start = time.perf_counter()
        call()
        if device is not None:
            synchronize(device)
        return time.perf_counter() - start

    first = timed()
    if first > LONG_SECONDS:
        return first
    seconds: list[float] = []
    while not seconds or (sum(seconds) < ENOUGH_SECONDS and len(seconds) < MOST_CALLS):
        seconds.append(timed())
    return median(seconds)


def measure_step_times(
    params: Params,
    space: Space,
    pictures: Pictures,
    networks: Mapping[str, tuple[Sequence[Architecture], float]],
    class_names: Sequence[str],
) -> StepTimes:
    """The time of every kind of step that `tfnas.cli.estimate.schedule` counts.

    Args:
        networks: for each target, its network or some of about its latency, and that latency in milliseconds.
        class_names: of the data set, in the order of labels.

    Raises:
        UserError: CUDA is asked for and absent; or a teacher of the user's does not fit.
    """
    classes = len(class_names)
    device = open_device(params.device.name, params.device.threads)
    searching = _Searching(params, space, device) if params.search.epochs else None
    trained = {name: _mean_training(params, some, classes, device) for name, (some, _) in networks.items()}
    ranking_step, ranking_batch = _ranking(params, classes, device)
    first = next(iter(networks.values()))[0][0]
    return StepTimes(
        start=start_seconds(),
        decode=pictures.decode,
        augment=pictures.transform(_of(params, params.search.augmentation)),
        plain=pictures.transform(eval_transform(params.resolution)),
        ranking_step=ranking_step,
        ranking_batch=ranking_batch,
        warm_up_step=searching.weight_step(searches=False) if searching else 0.0,
        search_step=searching.weight_step(searches=True) if searching else 0.0,
        architecture_step=searching.architecture_step() if searching else 0.0,
        path_batch=searching.path_batch() if searching else 0.0,
        derived_batch=searching.derived_batch() if searching else 0.0,
        epoch_end=searching.epoch_end() if searching else 0.0,
        training_step={name: step for name, (step, _) in trained.items()},
        training_batch={name: batch for name, (_, batch) in trained.items()},
        teacher_batch=_teacher_batch(params, class_names, device),
        latency={name: latency_ms / 1000 for name, (_, latency_ms) in networks.items()},
        log_model=_export_seconds(first, classes, params.resolution),
    )


def _of(params: Params, augmentation: AugmentationParams) -> Transform:
    return train_transform(params.resolution, augmentation)


def start_seconds() -> float:
    """Of a job, until it computes: a Python that imports what a stage does."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", STARTED], check=False, capture_output=True)
    return time.perf_counter() - start


def _export_seconds(architecture: Architecture, classes: int, resolution: int) -> float:
    network = build_network(architecture, classes).eval()
    start = time.perf_counter()
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, resolution, resolution),)), io.BytesIO())
    return time.perf_counter() - start


def _batch(size: int, resolution: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise: what it shows does not change how long it takes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, resolution, resolution, generator=generator)
    return images.to(device), torch.randint(classes, (size,), generator=generator).to(device)


def _ranking(params: Params, classes: int, device: torch.device) -> tuple[float, float]:
    """A step of fitting, and a batch of counting in proportion to its images."""
    network, settings = build_ranking_network(classes).to(device), params.rank_classes
    images, labels = _batch(settings.fit.batch_size, params.resolution, classes, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.fit.learning_rate)
    precision = params.device.precision

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(network, images, labels, device=device, precision=precision).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def count() -> None:
        count_correct(network, [(images, labels)], classes, device=device, precision=precision)

    stepped = seconds_of(step, device=device) if settings.weights == "fit" else 0.0
    return stepped, seconds_of(count, device=device) * settings.batch_size / settings.fit.batch_size


def _training(params: Params, architecture: Architecture, classes: int, device: torch.device) -> tuple[float, float]:
    """A step of the retraining, and a batch of its validation."""
    recipe, precision = params.retrain, params.device.precision
    network: nn.Module = build_network(architecture, classes, 0.2, recipe.drop_connect)
    stepper = TrainingStepper(network, recipe, device=device, precision=precision)
    part = _batch(recipe.batch_size // recipe.accumulate, params.resolution, classes, device)
    stepper.train_mode()
    step = seconds_of(lambda: stepper.step([part] * recipe.accumulate, 1e-3), device=device)
    batch = seconds_of(lambda: evaluate(stepper.evaluated, [part], device=device, precision=precision), device=device)
    return step, batch


def _teacher_batch(params: Params, classes: Sequence[str], device: torch.device) -> float:
    """The teacher's forward pass on a batch, as a part of a step or in validation.

    Raises:
        UserError: a file's teacher is missing, or not one for these classes.
    """
    recipe, teacher = params.retrain, params.retrain.teacher
    if teacher.network == NO_TEACHER:
        return 0.0
    if teacher.network == RANKING:
        read = Teacher(build_ranking_network(len(classes)), Path(RANKING), teacher)
    else:
        read = read_teacher(teacher, Path(RANKING), classes, params.resolution)
    network = read.ready(device, channels_last=recipe.channels_last)
    part = _batch(recipe.batch_size // recipe.accumulate, params.resolution, len(classes), device)
    return seconds_of(
        lambda: evaluate(network, [part], device=device, precision=params.device.precision), device=device
    )


def _mean_training(
    params: Params, networks: Sequence[Architecture], classes: int, device: torch.device
) -> tuple[float, float]:
    """`_training`, on the mean of some networks."""
    steps, batches = zip(*(_training(params, network, classes, device) for network in networks), strict=True)
    return fmean(steps), fmean(batches)


class _Searching:
    """A search's steps on a fresh supernet."""

    def __init__(self, params: Params, space: Space, device: torch.device) -> None:
        search = params.search
        self.params, self.device = search, device
        classes = min(params.build_subset.groups, params.profile_latency.num_classes)
        setting = Setting(search, params.seed, device, params.device.precision, "estimate", params.derive.within)
        self.constraint = Constraint(space, Widths(space, params.resolution), 0.0)
        self.state = SearchState.initial(space, classes, setting)
        self.state.begin_epoch(search.warmup_epochs)
        half = self.constraint.cost.value(self.state.supernet.derive("half").architecture)
        self.constraint = Constraint(space, self.constraint.cost, half)
        self.stepper = Stepper(self.state, setting, self.constraint)
        self.batch = _batch(search.batch_size, params.resolution, classes, device)
        self.generator, self.within = torch.Generator().manual_seed(0), params.derive.within

    def _path(self) -> Tensor:
        return gumbel_path(self.state.supernet.operation_logits(), 1.0, self.generator)

    def weight_step(self, *, searches: bool) -> float:
        kind = self.params.second_path

        def step() -> None:
            paths = [self._path()]
            if searches and kind != "none":
                logits = self.state.supernet.operation_logits()
                paths.append(second_path(kind, logits, paths[0], 1.0, self.generator))
            self.stepper.weight_step(self.batch, paths)

        return seconds_of(step, device=self.device)

    def architecture_step(self) -> float:
        shape = self.state.supernet.alphas.shape
        noise = gumbel_noise(shape, self.generator)
        return seconds_of(lambda: self.stepper.architecture_step(self.batch, 1.0, noise), device=self.device)

    def path_batch(self) -> float:
        return seconds_of(lambda: self.stepper.count_correct(self.batch, self._path()), device=self.device)

    def derived_batch(self) -> float:
        """Of one network, on the mean of some random ones."""
        networks = random_networks(self.state.supernet, 4, self.generator)
        seconds = seconds_of(lambda: self.stepper.count_correct_derived(self.batch, networks), device=self.device)
        return seconds / len(networks)

    def epoch_end(self) -> float:
        def end() -> None:
            derived = self.state.supernet.derive("end", self.constraint, self.within)
            scale_widths(derived.architecture, self.constraint, ranges=derived.width_ranges(self.constraint.space))
            with tempfile.TemporaryFile(dir=".") as file:
                torch.save(self.state.state_dict(), file)

        return seconds_of(end)


class Widths(Cost):
    """Multiply-adds of an operation's two 1x1 convolutions, about: a cost that needs no latency table."""

    name, unit, source = "multiply_adds", "M", "about"

    def __init__(self, space: Space, resolution: int) -> None:
        self.resolution, self.base = resolution, 1.0
        self.fixed_stages = tuple(stage.stage for stage in space.stages if stage.fixed is not None)
        self._largest = {}
        for layer in space.layers(resolution):
            for candidate in space.candidates if layer.stage not in self.fixed_stages else ():
                key = OperationKey.of_candidate(layer, candidate)
                low, high = candidate.width_range(layer.in_channels)
                known = self._largest.get(key, (low, high))
                self._largest[key] = min(low, known[0]), max(high, known[1])

    def operation(self, key: OperationKey, width: int) -> float:
        """In millions."""
        return 1e-6 * key.resolution**2 * width * (key.in_channels + key.out_channels / key.stride**2 + key.kernel**2)

    def curve(self, key: OperationKey) -> tuple[int, np.ndarray]:
        low, high = self._largest[key]
        return low, np.array([self.operation(key, width) for width in range(low, high + 1)])
