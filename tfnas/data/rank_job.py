"""The rank_classes job: from a manifest to class_accuracy.csv."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from tfnas.data.class_accuracy import ClassAccuracy, count_correct, rank, write_class_accuracy
from tfnas.data.image_dataset import ImageDataset
from tfnas.data.loader import EpochLoader, make_loader
from tfnas.data.manifest import image_root, manifest_samples, read_manifest
from tfnas.data.ranking_fit import fit
from tfnas.data.ranking_network import (
    FIT,
    IMAGENET,
    build_ranking_network,
    check_ranking_weights,
    load_ranking_network,
)
from tfnas.data.subset import check_groups
from tfnas.data.transforms import eval_transform
from tfnas.runtime.artifacts import write_json
from tfnas.runtime.devices import open_device
from tfnas.runtime.errors import UserError
from tfnas.runtime.progress import track
from tfnas.runtime.schema import Params
from tfnas.runtime.seeding import derive_seed, seed_everything
from tfnas.runtime.stage import Job

MIN_BATCH = 2  # BatchNorm needs two images

logger = logging.getLogger("tfnas.data")


def check_ranking(params: Params, manifest: Path) -> None:
    """Look at everything that can be wrong before any image is opened.

    Raises:
        UserError: fewer than two classes to rank, or fewer than build_subset.groups; a batch too small to fit;
            weights of other classes.
    """
    _, classes = manifest_samples(read_manifest(manifest), "train")
    if len(classes) < 2:
        raise UserError(f"{manifest}: has {len(classes)} classes to train on; ranking needs 2 or more")
    settings = params.rank_classes
    if settings.weights == FIT and settings.fit.batch_size < MIN_BATCH:
        raise UserError("params.yaml: rank_classes.fit.batch_size: 1 is too small for BatchNorm; write 2 or more")
    check_groups(params.build_subset.groups, len(classes))  # build_subset would find it after all the ranking
    check_ranking_weights(settings.weights, classes)


def run_rank_classes(job: Job, manifest: Path, images: Path) -> None:
    """Rank the classes by EfficientNet-B0's accuracy over all training images, into `job.out`.

    Writes class_accuracy.csv and metrics.json.
    """
    params = job.params
    device = open_device(params.device.name, params.device.threads)
    seed_everything(derive_seed(params.seed, "rank_classes"))
    samples, classes = manifest_samples(read_manifest(manifest), "train")
    bicubic = params.rank_classes.weights == IMAGENET  # as torchvision's weights were validated
    transform = eval_transform(params.resolution, bicubic=bicubic)
    dataset = ImageDataset(image_root(params.prepare_data.root, images), samples, transform)
    network = _network(params, dataset, classes, device)
    loader = _loader(params, dataset, params.rank_classes.batch_size, shuffle=False)
    batches = track(loader, label="rank_classes: images", total=len(loader))
    counts = count_correct(network, batches, len(classes), device=device, precision=params.device.precision)
    rows = rank(map(ClassAccuracy, classes, *counts))
    metrics = ranking_metrics(rows)
    write_class_accuracy(rows, job.out / "class_accuracy.csv")
    write_json(job.out / "metrics.json", metrics)
    job.run.log_metrics(metrics)
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


def _network(params: Params, dataset: ImageDataset, classes: list[str], device: torch.device) -> torch.nn.Module:
    settings = params.rank_classes
    if settings.weights != FIT:
        return load_ranking_network(settings.weights, classes).to(device)
    network = build_ranking_network(len(classes)).to(device)
    loader = _loader(params, dataset, settings.fit.batch_size, shuffle=True)
    fit(network, loader, settings.fit, device=device, precision=params.device.precision)
    return network


def _loader(params: Params, dataset: ImageDataset, batch_size: int, *, shuffle: bool) -> EpochLoader:
    return make_loader(
        dataset,
        batch_size,
        shuffle=shuffle,
        seed=derive_seed(params.seed, "rank_classes", "loader"),
        drop_last=shuffle,  # whole batches to train on, every image to count
        workers=params.device.workers,
        pin_memory=params.device.name != "cpu",
    )
