"""What retraining and transfer have in common: image sets, loaders, checkpoints, and the files that they write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tfnas.compute import distributed
from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed, seed_everything
from tfnas.data import (
    ImageDataset,
    eval_transform,
    image_root,
    load_transfer_set,
    make_loader,
    manifest_samples,
    read_manifest,
    train_transform,
    transfer_root,
)
from tfnas.data.images.loader import EpochLoader
from tfnas.jobs.artifacts import digest_params, write_json
from tfnas.jobs.checkpoints import CHECKPOINTS, CheckpointFolder
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, count_macs, count_params
from tfnas.space.given import check_rgb
from tfnas.train.distillation import Teacher, read_teacher
from tfnas.train.loop import Setting, TrainResult, evaluate, train
from tfnas.train.metrics import TrainingEpoch, final_metrics, seeds_metrics, write_seeds, write_training_history
from tfnas.train.params import NO_TEACHER, RecipeParams
from tfnas.train.start import Start, calibrate
from tfnas.train.weights import save_weights

if TYPE_CHECKING:
    from tfnas.stages.job import Job
    from tfnas.stages.params import Params

logger = logging.getLogger("tfnas.train")


@dataclass(frozen=True)
class ImageSets:
    """What a network is trained and validated on; items are ((3, H, W) image, label)."""

    train: Dataset[Any]
    val: Dataset[Any]
    num_classes: int
    resolution: int  # height and width of the images


def retrain_sets(params: Params, manifest: Path, images: Path) -> ImageSets:
    """All training and all validation images of the manifest.

    Raises:
        UserError: a split is empty, or the splits have different classes.
    """
    records = read_manifest(manifest)
    samples, classes = manifest_samples(records, "train")
    val_samples, val_classes = manifest_samples(records, "val")
    check_classes(classes, val_classes, source=str(manifest))
    root = image_root(params.prepare_data.root, images)
    return ImageSets(
        ImageDataset(root, samples, augmented(params.resolution, params.retrain), exif=params.prepare_data.exif),
        ImageDataset(root, val_samples, eval_transform(params.resolution), exif=params.prepare_data.exif),
        len(classes),
        params.resolution,
    )


def transfer_sets(params: Params, dataset: str, data: Path) -> ImageSets:
    """The two halves of a CIFAR-format set: CIFAR's from `transfer.root`, one made by prepare_data from `data`."""
    recipe = params.transfer
    root = transfer_root(recipe.root, dataset, data)
    train = load_transfer_set(dataset, root, True, augmented(recipe.resolution, recipe))
    val = load_transfer_set(dataset, root, False, eval_transform(recipe.resolution))
    check_classes(train.classes, val.classes, source=f"{root}: {dataset}")
    return ImageSets(train, val, len(train.classes), recipe.resolution)


def augmented(resolution: int, recipe: RecipeParams) -> Callable[[Any], Any]:
    """The recipe's augmentation, and before it, on the whole picture, two changes of RandAugment where asked for.

    Randomness comes from torch's global generator, which the loader sets for each image.
    """
    transform = train_transform(resolution, recipe.augmentation)
    if recipe.extras.rand_augment == 0:
        return transform
    from torchvision.transforms import v2

    return v2.Compose([v2.RandAugment(num_ops=2, magnitude=recipe.extras.rand_augment), transform])


def check_classes(train: list[str], val: list[str], *, source: str) -> None:
    """Raise UserError unless there are two classes or more, the same in both splits."""
    if len(train) < 2:
        raise UserError(f"{source}: has {len(train)} classes to train on; a classifier needs 2 or more")
    if train != val:
        odd = sorted(set(train) ^ set(val))
        raise UserError(f"{source}: class {odd[0]!r} is in one of train and val only; give both the same classes")


def retrain_teacher(params: Params, manifest: Path, ranking: Path) -> Teacher | None:
    """What `retrain.teacher` asks for; None where it asks for none.

    Raises:
        UserError: as `read_teacher`.
    """
    if params.retrain.teacher.network == NO_TEACHER:
        return None
    _, classes = manifest_samples(read_manifest(manifest), "train")
    return read_teacher(params.retrain.teacher, ranking, classes, params.resolution)


def load_architecture(path: Path) -> Architecture:
    """The network in a file.

    Raises:
        UserError: it holds no network of RGB images.
    """
    architecture = Architecture.load(path)
    check_rgb(architecture, path)
    return architecture


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


@dataclass(frozen=True)
class Training:
    """What a job trains.

    Attributes:
        build: makes the network to start from; called after seeding.
        size: of the network, for metrics.json: `network_size`.
        seeds: how many times to train, from different random numbers, for seeds.csv; None: once, without that file.
        write_weights: the first training's, as weights.pt.
        log_model: also log the trained network to tracking, under the target's name.
        start: the weights that `build` begins with; None for fresh ones.
        teacher: that it learns from as well.
    """

    build: Callable[[], nn.Module]
    sets: ImageSets
    recipe: RecipeParams
    size: Mapping[str, int]
    seeds: int | None = None
    write_weights: bool = True
    log_model: bool = False
    start: Start | None = None
    teacher: Teacher | None = None


def run_training(job: Job, training: Training) -> None:
    """Build a network, train it once per seed, and write weights.pt, history.csv, seeds.csv and metrics.json.

    Into `job.out`, as far as `training` asks for them. Weights, history and most metrics are the first training's.
    The processes that torchrun has started train together, and the first writes. Each training has its checkpoints,
    which are discarded only when the job succeeds: a job that is killed resumes within the current training, and one
    that fails to write or to log does not train again.

    Raises:
        UserError: as `train`; or a batch that the processes cannot share equally.
    """
    check_shares(training.recipe, "/".join(job.name))
    device = open_device(job.params.device.name, job.params.device.threads)
    finished = list[TrainResult]()
    with ExitStack() as stack:
        stack.enter_context(distributed.process_group(device))
        for number in range(1, (training.seeds or 1) + 1):
            checkpoints = SharedCheckpoints(partial(_checkpoints, job, number))
            stack.enter_context(checkpoints)
            trained = _train(job, training, device, checkpoints, number)
            finished.append(trained.result)
            if number == 1:
                first = trained
            if distributed.rank() == 0:
                job.at_end.insert(0, checkpoints.discard)  # the first training's folder holds the others'
        if distributed.rank() == 0:
            _write(job, training, first, finished)


class Trained(NamedTuple):
    """A trained network on the CPU in evaluation mode, as `build` makes it, and how its training went."""

    network: nn.Module
    result: TrainResult
    before: dict[str, float]  # what was validated before


def _label(job: Job, number: int) -> str:
    """The name of a training, which its random streams depend on: the job's, for the second and later with a number."""
    return "/".join(job.name if number == 1 else (*job.name, f"seed_{number}"))


def check_shares(recipe: RecipeParams, label: str) -> None:
    """Raise UserError unless every process gets equal parts, of two images or more, of each batch."""
    shares = recipe.accumulate * distributed.world_size()
    if recipe.batch_size % shares or recipe.batch_size // shares < 2:
        raise UserError(
            f"{label}: batch_size {recipe.batch_size} cannot be shared equally by {distributed.world_size()}"
            f" processes in {recipe.accumulate} parts each; change one of the three"
        )


def _checkpoints(job: Job, number: int) -> CheckpointFolder:
    depends = {"params": job.values, "inputs": job.input_digests, "processes": distributed.world_size()}
    return CheckpointFolder(CHECKPOINTS / _label(job, number), digest=digest_params(depends))


def _train(job: Job, training: Training, device: torch.device, checkpoints: SharedCheckpoints, number: int) -> Trained:
    """One of the trainings, counted from 1."""
    label = _label(job, number)
    seed_everything(derive_seed(job.params.seed, label))
    network, loaders, before = training.build(), _loaders(job, training, device, label), dict[str, float]()
    if training.start is not None:
        before["initial_top1_percent"] = _begin(job, training, training.start, network, loaders[1], device, label)
    distillation = None
    if training.teacher is not None:
        ready = training.teacher.ready(device, channels_last=training.recipe.channels_last)
        before["teacher_top1_percent"] = _judge(job, training, training.teacher, ready, loaders[1], device, label)
        distillation = training.teacher.distillation(ready)
    result = train(
        network,
        loaders,
        training.recipe,
        Setting(label, device, job.params.device.precision, job.params.seed),
        distillation=distillation,
        checkpoints=checkpoints,
        on_epoch=partial(_log_epoch, job) if number == 1 else None,
    )
    trained = training.build()  # not `network`, whose BatchNorm may be synchronized
    trained.load_state_dict(network.state_dict())
    return Trained(trained.eval(), result, before)


def _log_epoch(job: Job, record: TrainingEpoch) -> None:
    job.run.log_metrics(record.metrics(), step=record.epoch)


def _begin(
    job: Job,
    training: Training,
    start: Start,
    network: nn.Module,
    val: EpochLoader,
    device: torch.device,
    label: str,
) -> float:
    """Estimate BatchNorm's statistics where the weights have none; top-1 before training, in percent."""
    precision, num_classes = job.params.device.precision, training.sets.num_classes
    if not start.has_statistics:
        calibrate(network, _calibration_batches(job, training, device, label), device=device, precision=precision)
    top1 = evaluate(network.to(device), val, device=device, precision=precision).top1_percent
    fresh = (
        ""
        if start.num_classes == num_classes
        else (f"; the classifier is a fresh one, for {num_classes} classes instead of {start.num_classes}")
    )
    logger.info("%s: starts from %s: top-1 before training %.2f %%%s", label, start.source, top1, fresh)
    return top1


def _judge(
    job: Job,
    training: Training,
    teacher: Teacher,
    ready: nn.Module,
    val: EpochLoader,
    device: torch.device,
    label: str,
) -> float:
    """The teacher's own top-1, in percent.

    Raises:
        UserError: it is no better than chance, so it was trained on other classes.
    """
    top1 = evaluate(ready, val, device=device, precision=job.params.device.precision).top1_percent
    teacher.check_order(top1, training.sets.num_classes)
    logger.info("%s: learns from %s: top-1 %.2f %%", label, teacher.source, top1)
    return top1


def _calibration_batches(job: Job, training: Training, device: torch.device, label: str) -> EpochLoader:
    """Batches of training images as one process sees them, so that all of several compute the same statistics."""
    return make_loader(
        training.sets.train,
        training.recipe.batch_size // training.recipe.accumulate,
        shuffle=True,
        seed=derive_seed(job.params.seed, label, "calibration"),
        drop_last=True,
        workers=job.params.device.workers,
        pin_memory=device.type == "cuda",
        device=device,
    )


def _write(job: Job, training: Training, first: Trained, finished: Sequence[TrainResult]) -> None:
    metrics = final_metrics(first.result, training.size) | first.before | seeds_metrics(finished)
    _warn_of_weak_teacher(job, metrics)
    if training.write_weights:
        save_weights(first.network, job.out / "weights.pt")
    write_training_history(first.result.history, job.out / "history.csv")
    if training.seeds is not None:
        write_seeds([result.final for result in finished if result.final is not None], job.out / "seeds.csv")
    write_json(job.out / "metrics.json", metrics)
    job.run.log_metrics(metrics)
    if training.log_model:
        resolution = training.sets.resolution
        example = np.zeros((1, 3, resolution, resolution), dtype=np.float32)
        job.run.log_model(first.network, example, alias=job.target)


def _warn_of_weak_teacher(job: Job, metrics: Mapping[str, float]) -> None:
    """Say when the network has become better than its teacher, which then costs accuracy more often than not."""
    teacher = metrics.get("teacher_top1_percent")
    if teacher is not None and teacher < metrics["top1_percent"]:
        logger.warning(
            "%s: its teacher is less accurate (%.2f %%) than the network itself (%.2f %%), so it may do better without;"
            " compare with retrain.teacher.network: none",
            "/".join(job.name),
            teacher,
            metrics["top1_percent"],
        )


def network_size(architecture: Architecture, sets: ImageSets) -> dict[str, int]:
    """Parameters and multiply-adds of a network for these images."""
    return {
        "params": count_params(architecture, sets.num_classes),
        "macs": count_macs(architecture, sets.resolution, sets.num_classes),
    }


def _loaders(job: Job, training: Training, device: torch.device, label: str) -> tuple[EpochLoader, EpochLoader]:
    """Whole batches to train on, in the order of the recipe's sampler; all images in order to validate on.

    This process's share of both.
    """
    world_size, recipe = distributed.world_size(), training.recipe
    options = {
        "workers": job.params.device.workers,
        "pin_memory": device.type == "cuda",
        "rank": distributed.rank(),
        "world_size": world_size,
        "device": device,
    }
    seed = derive_seed(job.params.seed, label, "loader")
    size = recipe.batch_size // (recipe.accumulate * world_size)
    balanced = recipe.sampler == "balanced"
    return (
        make_loader(training.sets.train, size, shuffle=True, balanced=balanced, seed=seed, drop_last=True, **options),
        make_loader(training.sets.val, size, shuffle=False, seed=seed, drop_last=False, **options),
    )
