"""A training job: sets to loaders, checkpoints, and the three files that it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tfnas.data import make_loader
from tfnas.runtime.artifacts import digest_file, digest_params, write_json
from tfnas.runtime.checkpoints import CheckpointFolder
from tfnas.runtime.devices import open_device
from tfnas.runtime.params import stage_params
from tfnas.runtime.schema import RecipeParams
from tfnas.runtime.seeding import derive_seed, seed_everything
from tfnas.runtime.stage import Job
from tfnas.space import Architecture, count_macs, count_params
from tfnas.train.sets import ImageSets
from tfnas.train.trainer import Loader, TrainResult, train, write_history
from tfnas.train.weights import save_weights

CHECKPOINTS = Path("checkpoints")  # of the working directory, beside results/ and logs/


def run_training(
    job: Job,
    build: Callable[[], nn.Module],
    sets: ImageSets,
    recipe: RecipeParams,
    *,
    name: Sequence[str],
    architecture: Architecture,
    inputs: Sequence[Path],
    log_model: bool = False,
) -> None:
    """Build a network, train it, and write weights.pt, history.csv and metrics.json into `job.out`.

    Args:
        build: makes the network to start from, after the seeding.
        name: stage, target and, for a transfer, data set.
        inputs: files and folders the job reads; a checkpoint of other contents is not gone on from.
        log_model: hand the trained network to tracking, too.

    The checkpoint is discarded last, so that a job that fails to write or to log does not train again.
    """
    device = open_device(job.params.device.name, job.params.device.threads)
    label = "/".join(name)
    seed_everything(derive_seed(job.params.seed, label))
    network = build()
    digest = digest_params(
        {"params": stage_params(job.params, name[0], name[1]), "inputs": [digest_file(path) for path in inputs]}
    )
    with CheckpointFolder(CHECKPOINTS.joinpath(*name), digest=digest) as checkpoints:
        result = train(
            network,
            *_loaders(job, sets, recipe, label, device),
            recipe,
            name=label,
            device=device,
            precision=job.params.device.precision,
            seed=job.params.seed,
            checkpoints=checkpoints,
            on_epoch=lambda record: job.run.log_metrics(record.metrics(), step=record.epoch),
        )
        network.to("cpu").to(memory_format=torch.contiguous_format).eval()
        metrics = final_metrics(result, architecture, sets)
        save_weights(network, job.out / "weights.pt")
        write_history(result.history, job.out / "history.csv")
        write_json(job.out / "metrics.json", metrics)
        job.run.log_metrics(metrics)
        if log_model:
            job.run.log_model(network, np.zeros((1, 3, sets.resolution, sets.resolution), dtype=np.float32))
        checkpoints.discard()


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


def _loaders(
    job: Job, sets: ImageSets, recipe: RecipeParams, label: str, device: torch.device
) -> tuple[Loader, Loader]:
    """Shuffled whole batches to train on; all images in order to validate on."""
    options = {"workers": job.params.device.workers, "pin_memory": device.type == "cuda"}
    seed = derive_seed(job.params.seed, label, "loader")
    return (
        make_loader(sets.train, recipe.batch_size, shuffle=True, seed=seed, drop_last=True, **options),
        make_loader(sets.val, recipe.batch_size, shuffle=False, seed=seed, drop_last=False, **options),
    )
