"""The search job: from a parameter file and its inputs to the files that it writes."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfnas.data import ImageDataset, eval_transform, image_root, make_loader, read_samples, train_transform
from tfnas.latency import LatencyTable
from tfnas.runtime.artifacts import digest_file, digest_params, write_json
from tfnas.runtime.checkpoints import CheckpointFolder
from tfnas.runtime.devices import open_device
from tfnas.runtime.errors import UserError
from tfnas.runtime.params import stage_params
from tfnas.runtime.schema import Params
from tfnas.runtime.seeding import derive_seed, seed_everything
from tfnas.runtime.stage import Job
from tfnas.search.constraint import Constraint, latency_metrics
from tfnas.search.epoch import Loader
from tfnas.search.history import write_history
from tfnas.search.result import SearchResult
from tfnas.search.searcher import search

CHECKPOINTS = Path("checkpoints")  # of the working directory, beside results/ and logs/
MIN_BATCH = 2  # BatchNorm needs two images

Samples = list[tuple[str, int]]

logger = logging.getLogger("tfnas.search")


def run_search(
    job: Job, constraint: Constraint, *, target: str, train: Path, val: Path, images: Path, inputs: list[Path]
) -> None:
    """Search for a target and write supernet.pt, history.csv and metrics.json into `job.out`.

    Args:
        train, val: train.csv and val.csv of build_subset.
        images: the images/ folder of prepare_data.
        inputs: files and folders the job reads; a checkpoint of other contents is not gone on from.

    The checkpoint is discarded last, so that a job that fails to write does not search again.
    """
    params, name = job.params, f"search/{target}"
    device = open_device(params.device.name, params.device.threads)
    seed_everything(derive_seed(params.seed, "search"))
    samples = read_samples(train), read_samples(val)
    num_classes = count_classes(*samples, source=str(train))
    loaders = _loaders(params, *samples, image_root(params.prepare_data.root, images))
    depends = [stage_params(params, "search", target), asdict(constraint.space), [digest_file(path) for path in inputs]]
    with CheckpointFolder(CHECKPOINTS / "search" / target, digest=digest_params(depends)) as checkpoints:
        result = search(
            constraint.space,
            *loaders,
            constraint.table,
            constraint.target_ms,
            params=params.search,
            num_classes=num_classes,
            seed=params.seed,
            device=device,
            precision=params.device.precision,
            name=name,
            checkpoints=checkpoints,
            on_epoch=lambda record: job.run.log_metrics(record.metrics(), step=record.epoch),
        )
        metrics = search_metrics(result, constraint.table, target)
        if params.search.elasticity_scaling is not False:
            _warn_off_target(metrics["gap_percent"], name)
        result.save(job.out / "supernet.pt")
        write_history(result.history, job.out / "history.csv")
        write_json(job.out / "metrics.json", metrics)
        job.run.log_metrics(metrics)
        checkpoints.discard()


def search_metrics(result: SearchResult, table: LatencyTable, target: str) -> dict[str, float]:
    """The last epoch in numbers."""
    last = result.history[-1]
    return {
        **latency_metrics(result.derive(target).architecture, table, result.target_ms),
        "expected_latency_ms": last.expected_latency_ms,
        "train_loss": last.train_loss,
        "train_top1_percent": last.train_top1,
        "val_top1_percent": last.val_top1,
        "alpha_entropy": last.alpha_entropy,
        "epochs": last.epoch,
        "num_classes": result.num_classes,
    }


def _warn_off_target(gap_percent: float, name: str) -> None:
    if gap_percent > 0.0:
        logger.warning("%s: the derived network is %.2f %% above the target at its smallest widths", name, gap_percent)
    elif gap_percent < -1.0:
        logger.warning(
            "%s: the derived network is %.2f %% below the target; its widths are as large as they may be, so a lower"
            " target or search.latency_loss: target_abs would use the time up",
            name,
            -gap_percent,
        )


def count_classes(train: Samples, val: Samples, *, source: str) -> int:
    """Number of classes, labels being 0, 1, ...

    Raises:
        UserError: fewer than two.
    """
    num_classes = 1 + max((label for _, label in train + val), default=-1)
    if num_classes < 2:
        raise UserError(f"{source}: has {num_classes} classes; a search needs 2 or more (build_subset.groups)")
    return num_classes


def _loaders(params: Params, train: Samples, val: Samples, root: Path) -> tuple[Loader, Loader]:
    """Shuffled whole batches: augmented ones for the weights, plain ones for alpha and beta."""
    batch_size = params.search.batch_size
    if batch_size < MIN_BATCH:
        raise UserError(f"params.yaml: search.batch_size: {batch_size} is too small for BatchNorm; write 2 or more")
    options: dict[str, Any] = {
        "shuffle": True,
        "seed": derive_seed(params.seed, "search", "loader"),
        "workers": params.device.workers,
        "drop_last": True,
        "pin_memory": params.device.name != "cpu",
    }
    augmented = train_transform(params.resolution, params.search.augmentation)
    return (
        make_loader(ImageDataset(root, train, augmented), batch_size, **options),
        make_loader(ImageDataset(root, val, eval_transform(params.resolution)), batch_size, **options),
    )
