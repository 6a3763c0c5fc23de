"""How long a run takes: params.yaml, numbers of images and measured step times to seconds per job and in all.

Pure functions. A job is a sum of parts, a part so many equal pieces of work: steps, counted as the loaders count their
batches, and the seconds of one. What is left out takes seconds: listing files, and drawing the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tfnas.cli.init.sizes import subset_sizes
from tfnas.data.images.loader import CACHE_BYTES
from tfnas.data.ranking import FIT
from tfnas.latency.known_networks import COARSE, FINE
from tfnas.latency.params import KNOWN, baseline_kind
from tfnas.stages.params import Params, searches_nothing
from tfnas.stages.registry import STAGES
from tfnas.train.params import NO_TEACHER, SCRATCH, RecipeParams
from tfnas.train.start import CALIBRATION_BATCHES

WHOLE_NETWORK_ROUNDS = 10  # in which `derive` measures, each with a warm-up
TRANSFER_SIZES = {"shifted-digits": (1437, 360), "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000)}


class ImageCounts(NamedTuple):
    """The images of a run."""

    train: Mapping[str, int]  # of each class
    val: int
    picture_bytes: float = 0.0  # of a decoded picture, on the mean

    @property
    def all_train(self) -> int:
        return sum(self.train.values())


@dataclass(frozen=True)
class StepTimes:
    """Seconds on the device and the threads of params.yaml, with its batches.

    Attributes:
        start: of a job, until it computes.
        decode, augment, plain: of an image: from its file to pixels, from pixels to a batch of training or validation.
        ranking_step, ranking_batch: EfficientNet-B0 on `fit.batch_size` images trained, on `batch_size` counted.
        warm_up_step, search_step, architecture_step: of the supernet: one path, two paths, alpha and beta.
        path_batch, derived_batch: one path and one derived network, forward.
        epoch_end: of the search: derive, scale, write a checkpoint.
        training_step, training_batch: of each target's network: a step of the retraining without a teacher, a batch of
            its validation.
        teacher_batch: the teacher's forward pass on a batch of the retraining's validation; 0 without a teacher.
        latency: of each target's network, on the device it will run on.
        log_model: exporting a trained network.
    """

    start: float
    decode: float
    augment: float
    plain: float
    ranking_step: float
    ranking_batch: float
    warm_up_step: float
    search_step: float
    architecture_step: float
    path_batch: float
    derived_batch: float
    epoch_end: float
    training_step: Mapping[str, float]
    training_batch: Mapping[str, float]
    teacher_batch: float
    latency: Mapping[str, float]
    log_model: float


class Part(NamedTuple):
    """Equal pieces of a job's work."""

    what: str
    count: float
    seconds: float  # of one


class JobTime(NamedTuple):
    """A job, as `tfnas.stages.job.Job` names it."""

    stage: str
    names: tuple[str, ...]  # target, data set or network
    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        return sum(part.count * part.seconds for part in self.parts)


def search_steps(params: Params, counts: ImageCounts) -> tuple[int, int, int]:
    """Weight steps, architecture steps and validation batches of an epoch of the search, whole batches only."""
    subset = params.build_subset
    train, val = subset_sizes(_listed(params, counts), subset.groups, subset.train_fraction, subset.images_per_class)
    steps = train // params.search.batch_size
    return steps, -(-steps // params.search.architecture.every), val // params.search.batch_size


def training_steps(recipe: RecipeParams, train: int, val: int) -> tuple[int, int]:
    """Steps and validation batches of an epoch of training."""
    size = recipe.batch_size // recipe.accumulate
    return train // size // recipe.accumulate, -(-val // size)


def job_times(params: Params, counts: ImageCounts, times: StepTimes, cores: int) -> list[JobTime]:
    """Every job of a run, in the order of the stages.

    Args:
        cores: that the engine may use.
    """
    clock = _Clock(params, counts, times, cores)
    jobs = [
        JobTime("prepare_data", (), clock.prepare_data()),
        JobTime("rank_classes", (), clock.rank_classes()),
        JobTime("build_subset", (), clock.build_subset()),
        JobTime("profile_latency", (), clock.profile_latency()),
        JobTime("warm_up", (), clock.warm_up()),
    ]
    jobs += [JobTime("search", (name,), clock.search(name)) for name in params.targets]
    jobs += [JobTime("derive", (name,), clock.derive(name)) for name in params.targets]
    jobs += [JobTime("retrain", (name,), clock.retrain(name)) for name in params.targets]
    jobs += [
        JobTime("transfer", (name, dataset), clock.transfer(name, dataset))
        for name in params.transfer.targets
        for dataset in params.transfer.datasets
    ]
    baselines = [(name, network) for name in params.baselines.targets for network in params.baselines.networks]
    jobs += [JobTime("scale_baseline", pair, clock.scale_baseline(*pair)) for pair in baselines]
    jobs += [JobTime("train_baseline", pair, clock.train_baseline(pair[0])) for pair in baselines]
    jobs += [JobTime("rank_baselines", (name,), clock.rank_baselines()) for name in params.baselines.targets]
    return [*jobs, JobTime("report", (), clock.started())]


def stage_seconds(jobs: Sequence[JobTime], params: Params, cores: int, gpus: int = 1) -> dict[str, float]:
    """Seconds of each stage: its jobs side by side where cores (or GPUs) allow, one after another where it measures.

    The targets' chains overlap across stages too, which makes a run a little shorter than this.
    """
    result: dict[str, float] = {}
    for stage in dict.fromkeys(job.stage for job in jobs):
        seconds = [job.seconds for job in jobs if job.stage == stage]
        side = 1 if STAGES[stage].measures else _side_by_side(params, cores, gpus)
        result[stage] = max(max(seconds), sum(seconds) / side)
    return result


def total_seconds(jobs: Sequence[JobTime], params: Params, cores: int, gpus: int = 1) -> float:
    """Of the whole run: its stages one after another."""
    return sum(stage_seconds(jobs, params, cores, gpus).values())


def _side_by_side(params: Params, cores: int, gpus: int) -> int:
    """Jobs that the engine runs at once."""
    fitting = max(1, cores // params.device.threads)
    return fitting if params.device.name == "cpu" else min(fitting, max(1, gpus))


def _listed(params: Params, counts: ImageCounts) -> dict[str, int]:
    most = params.prepare_data.images_per_class
    return {name: min(count, most or count) for name, count in counts.train.items()}


@dataclass(frozen=True)
class _Clock:
    """The parts of each stage's jobs."""

    params: Params
    counts: ImageCounts
    times: StepTimes
    cores: int

    def started(self) -> tuple[Part, ...]:
        return (Part("start", 1, self.times.start),)

    def prepare_data(self) -> tuple[Part, ...]:
        verified = self._images + self.counts.val if self.params.prepare_data.verify else 0
        return (*self.started(), Part("decoded image", verified / max(1, self._loaders), self.times.decode))

    def rank_classes(self) -> tuple[Part, ...]:
        times, settings = self.times, self.params.rank_classes
        counted = -(-self._images // settings.batch_size)
        size = min(settings.batch_size, self._images)
        parts = [Part("batch", counted, self._loaded(times.ranking_batch, size, times.plain))]
        epochs = 0
        if settings.weights == FIT:
            steps, size, epochs = self._images // settings.fit.batch_size, settings.fit.batch_size, settings.fit.epochs
            forward = times.ranking_batch * size / max(settings.batch_size, 1)
            parts += [
                Part("step", epochs * steps, self._loaded(times.ranking_step, size, times.plain)),
                Part("batch for BatchNorm", steps, self._loaded(forward, size, times.plain)),
            ]
        return (*self.started(), self._decoded(self._images, epochs + 1), *parts)

    def build_subset(self) -> tuple[Part, ...]:
        subset = self.params.build_subset
        packed = sum(subset_sizes(self._listed, subset.groups, subset.train_fraction, subset.images_per_class))
        count = 0.0 if subset.materialize.format == "none" else 2 * packed / max(1, self._loaders)  # decoded, encoded
        return (*self.started(), Part("packed image", count, self.times.decode))

    def profile_latency(self) -> tuple[Part, ...]:
        measured = self.params.profile_latency.table is None
        return (*self.started(), Part("minute", self.params.profile_latency.minutes if measured else 0.0, 60.0))

    def warm_up(self) -> tuple[Part, ...]:
        """Its epochs; with `search.epochs: 0` none."""
        search = self.params.search
        return self._searched(min(search.warmup_epochs, search.epochs), searches=False)

    def search(self, target: str) -> tuple[Part, ...]:
        """The epochs after the warm-up; none where the network is given."""
        if searches_nothing(self.params, "search", target):
            return self.started()
        return self._searched(self.params.search.epochs - self.params.search.warmup_epochs, searches=True)

    def _searched(self, epochs: int, *, searches: bool) -> tuple[Part, ...]:
        times, search = self.times, self.params.search
        steps, architecture_steps, batches = search_steps(self.params, self.counts)
        evaluated = min(batches, search.evaluation.batches)
        size, step = search.batch_size, times.search_step if searches else times.warm_up_step
        parts = [
            Part("weight step", epochs * steps, self._loaded(step, size, times.augment)),
            Part("validation batch", epochs * batches, self._loaded(times.path_batch, size, times.plain)),
            Part("evaluated batch", epochs * evaluated * (1 + search.evaluation.random_paths), times.derived_batch),
            Part("loaded batch", epochs * evaluated, self._loaded(0.0, size, times.plain)),
            Part("end of an epoch", epochs, times.epoch_end),
        ]
        if searches:
            seconds = self._loaded(times.architecture_step, size, times.plain)
            parts.append(Part("architecture step", epochs * architecture_steps, seconds))
        images = (steps + batches) * size
        return (*self.started(), self._decoded(images, epochs), *parts)

    def derive(self, target: str) -> tuple[Part, ...]:
        return (*self.started(), Part("run", self._runs, self.times.latency[target]))

    def scale_baseline(self, target: str, network: str) -> tuple[Part, ...]:
        """A known network is measured at several widths, which are about as fast as the target's network."""
        widths = len(COARSE) + FINE if baseline_kind(network) == KNOWN else 1
        return (*self.started(), Part("run", widths * self._runs, self.times.latency[target]))

    @property
    def _runs(self) -> int:
        """Of one network that is measured end to end."""
        return self.params.derive.measure_repeats + WHOLE_NETWORK_ROUNDS * self.params.profile_latency.warmup_runs

    def retrain(self, target: str) -> tuple[Part, ...]:
        """The epochs of each seed and what comes before them; the export."""
        return (*self._trained(target, self._start(target)), Part("export", 1, self.times.log_model))

    def train_baseline(self, target: str) -> tuple[Part, ...]:
        """As the target's network, which is about as large, from scratch."""
        return self._trained(target, ())

    def rank_baselines(self) -> tuple[Part, ...]:
        """Each random network on all images that did not train the supernet's weights."""
        times, size = self.times, self.params.search.batch_size
        networks = sum(baseline_kind(name) != KNOWN for name in self.params.baselines.networks)
        _, _, batches = search_steps(self.params, self.counts)
        return (
            *self.started(),
            self._decoded(batches * size, networks),
            Part("evaluated batch", networks * batches, self._loaded(times.derived_batch, size, times.plain)),
        )

    def _trained(self, target: str, start: tuple[Part, ...]) -> tuple[Part, ...]:
        """The epochs of each seed, with the teacher's forward pass in each step and one validation of the teacher.

        Args:
            start: the parts before the first epoch of a seed.
        """
        recipe, times = self.params.retrain, self.times
        epochs, taught = recipe.seeds * recipe.epochs, recipe.teacher.network != NO_TEACHER
        steps, batches = training_steps(recipe, self._images, self.counts.val)
        step = times.training_step[target] + (recipe.accumulate * times.teacher_batch if taught else 0.0)
        judged = Part("teacher's batch", recipe.seeds * batches, self._validated(times.teacher_batch))
        return (
            *self.started(),
            self._decoded(self._images + self.counts.val, epochs),
            *(part._replace(count=recipe.seeds * part.count) for part in start),
            *((judged,) if taught else ()),
            Part("step", epochs * steps, self._loaded(step, recipe.batch_size, times.augment)),
            Part("validation batch", epochs * batches, self._validated(times.training_batch[target])),
        )

    def _start(self, target: str) -> tuple[Part, ...]:
        """BatchNorm's statistics of a supernet's weights, and a validation of weights that are not fresh."""
        recipe, times = self.params.retrain, self.times
        inherits, given = recipe.inherits, self.params.targets[target].constraint.is_given
        if recipe.initial == SCRATCH or (inherits and given):  # a given network comes from no supernet
            return ()
        _, batches = training_steps(recipe, self._images, self.counts.val)
        parts = [Part("validation batch before", batches, self._validated(times.training_batch[target]))]
        if inherits:
            size = recipe.batch_size // recipe.accumulate
            seconds = self._loaded(times.training_batch[target], size, times.augment)
            parts.append(Part("batch for BatchNorm", min(CALIBRATION_BATCHES, self._images // size), seconds))
        return tuple(parts)

    def _validated(self, compute: float) -> float:
        """Seconds of a batch of the retraining's validation."""
        size = min(self.params.retrain.batch_size // self.params.retrain.accumulate, self.counts.val)
        return self._loaded(compute, size, self.times.plain)

    def transfer(self, target: str, dataset: str) -> tuple[Part, ...]:
        """Its steps are the retraining's, in proportion to pixels and images."""
        recipe, times, retrain = self.params.transfer, self.times, self.params.retrain
        steps, batches = training_steps(recipe, *TRANSFER_SIZES[dataset])
        scale = recipe.batch_size * recipe.resolution**2 / (retrain.batch_size * self.params.resolution**2)
        step = self._loaded(scale * times.training_step[target], recipe.batch_size, times.augment)
        batch = self._loaded(scale * times.training_batch[target], recipe.batch_size, times.plain)
        return (
            *self.started(),
            Part("step", recipe.epochs * steps, step),
            Part("validation batch", recipe.epochs * batches, batch),
        )

    @property
    def _listed(self) -> dict[str, int]:
        return _listed(self.params, self.counts)

    @property
    def _images(self) -> int:
        return sum(self._listed.values())

    @property
    def _loaders(self) -> int:
        """Loading processes that get a core."""
        return min(self.params.device.workers, self.cores)

    def _loaded(self, compute: float, images: int, each: float) -> float:
        """Seconds of a batch with its images: one after the other, or side by side with loading processes.

        These share the cores with the job's own threads where it computes on the CPU.
        """
        load, threads = images * each, min(self.params.device.threads, self.cores)
        if self.params.device.workers == 0:
            return compute + load
        shared = (compute * threads + load) / max(threads, self.cores) if self.params.device.name == "cpu" else 0.0
        return max(compute, load / self._loaders, shared)

    def _decoded(self, images: float, passes: int) -> Part:
        """Decoding: once in each loading process where the pictures fit into its memory, else in every pass."""
        workers = max(1, self.params.device.workers)
        is_kept = images * self.counts.picture_bytes <= CACHE_BYTES
        times = min(passes, workers) if is_kept else passes
        return Part("decoded image", times * images / max(1, self._loaders), self.times.decode)
