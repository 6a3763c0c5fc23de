"""What retraining and transfer have in common: loaders, checkpoints, and the files that they write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tfnas.compute import distributed
from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed, seed_everything
from tfnas.data import make_loader
from tfnas.data.images.loader import EpochLoader
from tfnas.jobs.artifacts import digest_params, write_json
from tfnas.jobs.checkpoints import CHECKPOINTS, CheckpointFolder
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, count_macs, count_params
from tfnas.train.metrics import write_training_history
from tfnas.train.params import RecipeParams
from tfnas.train.sets import ImageSets
from tfnas.train.training import SharedCheckpoints, TrainResult, train
from tfnas.train.weights import save_weights

if TYPE_CHECKING:
    from tfnas.stages.job import Job


@dataclass(frozen=True)
class Training:
    """What a job trains.

    Attributes:
        build: makes the network to start from; called after seeding.
        log_model: also log the trained network to tracking, under the target's name.
    """

    build: Callable[[], nn.Module]
    sets: ImageSets
    recipe: RecipeParams
    architecture: Architecture
    log_model: bool = False


def run_training(job: Job, training: Training) -> None:
    """Build a network, train it, and write weights.pt, history.csv and metrics.json into `job.out`.

    The processes that torchrun has started train it together, and the first writes. The checkpoint is discarded only
    when the job succeeds, so a job that fails to write or to log does not train again.

    Raises:
        UserError: as `train`; or a batch that the processes cannot share equally.
    """
    check_shares(training.recipe, "/".join(job.name))
    device = open_device(job.params.device.name, job.params.device.threads)
    with (
        distributed.process_group(device),
        SharedCheckpoints(lambda: _checkpoints(job)) as checkpoints,
    ):
        network, result = _train(job, training, device, checkpoints)
        if distributed.rank() == 0:
            _write(job, training, network, result)
            job.at_end.append(checkpoints.discard)


def check_shares(recipe: RecipeParams, label: str) -> None:
    """Raise UserError unless every process gets equal parts, of two images or more, of each batch."""
    shares = recipe.accumulate * distributed.world_size()
    if recipe.batch_size % shares or recipe.batch_size // shares < 2:
        raise UserError(
            f"{label}: batch_size {recipe.batch_size} cannot be shared equally by {distributed.world_size()}"
            f" processes in {recipe.accumulate} parts each; change one of the three"
        )


def _checkpoints(job: Job) -> CheckpointFolder:
    depends = {"params": job.values, "inputs": job.input_digests, "processes": distributed.world_size()}
    return CheckpointFolder(CHECKPOINTS.joinpath(*job.name), digest=digest_params(depends))


def _train(
    job: Job, training: Training, device: torch.device, checkpoints: SharedCheckpoints
) -> tuple[nn.Module, TrainResult]:
    """The trained network, as `build` makes it, on the CPU in evaluation mode; and the result of its training."""
    seed_everything(derive_seed(job.params.seed, "/".join(job.name)))
    network = training.build()
    result = train(
        network,
        *_loaders(job, training, device),
        training.recipe,
        name="/".join(job.name),
        device=device,
        precision=job.params.device.precision,
        seed=job.params.seed,
        checkpoints=checkpoints,
        on_epoch=lambda record: job.run.log_metrics(record.metrics(), step=record.epoch),
    )
    trained = training.build()  # not `network`, whose BatchNorm may be synchronized
    trained.load_state_dict(network.state_dict())
    return trained.eval(), result


def _write(job: Job, training: Training, network: nn.Module, result: TrainResult) -> None:
    metrics = final_metrics(result, training.architecture, training.sets)
    save_weights(network, job.out / "weights.pt")
    write_training_history(result.history, job.out / "history.csv")
    write_json(job.out / "metrics.json", metrics)
    job.run.log_metrics(metrics)
    if training.log_model:
        resolution = training.sets.resolution
        example = np.zeros((1, 3, resolution, resolution), dtype=np.float32)
        job.run.log_model(network, example, alias=job.target)


def final_metrics(result: TrainResult, architecture: Architecture, sets: ImageSets) -> dict[str, float]:
    """Validation after the last epoch, and the network's size at this resolution and number of classes."""
    final = result.final
    assert final is not None
    top5 = {} if final.top5_percent is None else {"top5_percent": final.top5_percent}
    return {
        "top1_percent": final.top1_percent,
        **top5,
        "loss": final.loss,
        "epochs": len(result.history),
        "params": count_params(architecture, sets.num_classes),
        "macs": count_macs(architecture, sets.resolution, sets.num_classes),
    }


def _loaders(job: Job, training: Training, device: torch.device) -> tuple[EpochLoader, EpochLoader]:
    """Shuffled whole batches to train on; all images in order to validate on. This process's share of both."""
    world_size, recipe = distributed.world_size(), training.recipe
    options = {
        "workers": job.params.device.workers,
        "pin_memory": device.type == "cuda",
        "rank": distributed.rank(),
        "world_size": world_size,
        "device": device,
    }
    seed = derive_seed(job.params.seed, "/".join(job.name), "loader")
    size = recipe.batch_size // (recipe.accumulate * world_size)
    return (
        make_loader(training.sets.train, size, shuffle=True, seed=seed, drop_last=True, **options),
        make_loader(training.sets.val, size, shuffle=False, seed=seed, drop_last=False, **options),
    )
