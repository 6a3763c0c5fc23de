"""Stage rank_classes: from a manifest to the accuracy of each class (Appendix B)."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any

import torch
from torch import nn

from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed, seed_everything
from tfnas.data.class_accuracy import ClassAccuracy, draw_class_accuracy, rank, write_class_accuracy
from tfnas.data.images.loader import EpochLoader, ImageDataset, make_loader
from tfnas.data.images.stores import image_root
from tfnas.data.images.transforms import eval_transform
from tfnas.data.manifest import manifest_samples, read_manifest, warn_of_changed_images
from tfnas.data.ranking import (
    FIT,
    IMAGENET,
    build_ranking_network,
    check_ranking_weights,
    count_correct,
    fit,
    load_ranking_network,
)
from tfnas.data.subset import CLASS_LIST, check_groups
from tfnas.jobs.artifacts import digest_params, write_json
from tfnas.jobs.checkpoints import CHECKPOINTS, CheckpointFolder, plain_state, write_tensors
from tfnas.jobs.errors import UserError
from tfnas.jobs.progress import track
from tfnas.stages.job import Job
from tfnas.stages.params import Params

SHARD_BATCHES = 100  # between two checkpoints
MIN_BATCH = 2  # BatchNorm needs two images

logger = logging.getLogger("tfnas.data")


def check(job: Job) -> None:
    """Check everything that can be wrong before any image is opened.

    Raises:
        UserError: fewer than two classes to rank, or fewer than build_subset.groups; a batch too small to fit;
            weights of other classes.
    """
    params, manifest = job.params, job.inputs["manifest"]
    _, classes = manifest_samples(read_manifest(manifest), "train")
    if len(classes) < 2:
        raise UserError(f"{manifest}: has {len(classes)} classes to train on; ranking needs 2 or more")
    settings = params.rank_classes
    if settings.weights == FIT and settings.fit.batch_size < MIN_BATCH:
        raise UserError("params.yaml: rank_classes.fit.batch_size: 1 is too small for BatchNorm; write 2 or more")
    if params.build_subset.strategy != CLASS_LIST:
        check_groups(params.build_subset.groups, len(classes))  # build_subset would find it after all the ranking
    check_ranking_weights(settings.weights, classes)
    warn_of_changed_images(params, manifest)


def run(job: Job, _: None) -> None:
    """Rank the classes by EfficientNet-B0's accuracy over all training images, into `job.out`.

    Writes class_accuracy.csv, class_accuracy.svg, network.pt and metrics.json. Resumes where a job with the same
    parameters and images was stopped, with the same outcome.
    """
    params, manifest, images = job.params, job.inputs["manifest"], job.inputs["images"]
    device = open_device(params.device.name, params.device.threads)
    seed_everything(derive_seed(params.seed, "rank_classes"))
    samples, classes = manifest_samples(read_manifest(manifest), "train")
    bicubic = params.rank_classes.weights == IMAGENET  # as torchvision's weights were validated
    transform = eval_transform(params.resolution, bicubic=bicubic)
    dataset = ImageDataset(
        image_root(params.prepare_data.root, images), samples, transform, exif=params.prepare_data.exif
    )
    with CheckpointFolder(
        CHECKPOINTS / "rank_classes", digest=digest_params([job.values, *job.input_digests])
    ) as checkpoints:
        state = checkpoints.load() or {}
        network = _network(params, dataset, classes, device, checkpoints, state)
        counts = _count(params, dataset, network, len(classes), device, checkpoints, state)
        rows = rank(map(ClassAccuracy, classes, *counts))
        metrics = ranking_metrics(rows)
        write_class_accuracy(rows, job.out / "class_accuracy.csv")
        draw_class_accuracy(rows, job.out / "class_accuracy.svg")
        write_tensors(plain_state(network), job.out / "network.pt")
        write_json(job.out / "metrics.json", metrics)
        job.run.log_metrics(metrics)
        job.at_end.append(checkpoints.discard)
    logger.info("top-1 over all training images: %.2f %%", metrics["top1_percent"])


def ranking_metrics(rows: list[ClassAccuracy]) -> dict[str, float]:
    """Over all training images, and of the best and the worst class."""
    images = sum(row.images for row in rows)
    return {
        "top1_percent": 100.0 * sum(row.correct for row in rows) / images,
        "best_class_top1_percent": rows[0].top1,
        "worst_class_top1_percent": rows[-1].top1,
        "images": images,
        "num_classes": len(rows),
    }


def _network(
    params: Params,
    dataset: ImageDataset,
    classes: list[str],
    device: torch.device,
    checkpoints: CheckpointFolder,
    state: dict[str, Any],
) -> nn.Module:
    """The network that ranks, trained; it goes into `state` where it was trained here."""
    settings = params.rank_classes
    if settings.weights != FIT:
        return load_ranking_network(settings.weights, classes).to(device)
    network = build_ranking_network(len(classes)).to(device)
    if "network" in state:
        network.load_state_dict(state["network"])
        return network
    loader = _loader(params, dataset, settings.fit.batch_size, shuffle=True)
    fit(
        network,
        loader,
        settings.fit,
        device=device,
        precision=params.device.precision,
        state=state.pop("fit", None),
        on_epoch=lambda progress: checkpoints.save({"fit": progress}),
    )
    state["network"] = network.state_dict()
    checkpoints.save(state)
    return network


def _count(
    params: Params,
    dataset: ImageDataset,
    network: nn.Module,
    num_classes: int,
    device: torch.device,
    checkpoints: CheckpointFolder,
    state: dict[str, Any],
) -> tuple[list[int], list[int]]:
    """Images and correct ones of each class; a checkpoint after each shard."""
    loader = _loader(params, dataset, params.rank_classes.batch_size, shuffle=False)
    done = state.get("batches", 0)
    counts = state.get("counts", torch.zeros(2, num_classes, dtype=torch.int64))
    loader.set_epoch(0, start=done)
    batches = iter(track(loader, label="rank_classes: images", total=len(loader) - done))
    for start in range(done, len(loader), SHARD_BATCHES):
        shard = islice(batches, SHARD_BATCHES)
        part = count_correct(network, shard, num_classes, device=device, precision=params.device.precision)
        counts = counts + torch.tensor(part)
        state |= {"batches": min(start + SHARD_BATCHES, len(loader)), "counts": counts}
        checkpoints.save(state)
    for broken in sorted(loader.broken):
        logger.warning("not ranked: %s", broken)
    images, correct = counts.tolist()
    if 0 in images:
        raise UserError(f"prepare_data: class number {images.index(0)} has no image that can be read; run it again")
    return images, correct


def _loader(params: Params, dataset: ImageDataset, batch_size: int, *, shuffle: bool) -> EpochLoader:
    return make_loader(
        dataset,
        batch_size,
        shuffle=shuffle,
        seed=derive_seed(params.seed, "rank_classes", "loader"),
        drop_last=shuffle,  # whole batches to train on, every image to count
        workers=params.device.workers,
        pin_memory=params.device.name != "cpu",
        device=torch.device(params.device.name),
    )
