"""The search and derive jobs: from a parameter file and its inputs to the files that they write."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfnas.data import ImageDataset, eval_transform, image_root, make_loader, read_samples, train_transform
from tfnas.latency import LatencyTable, resolve_target_ms
from tfnas.runtime.artifacts import digest_file, digest_params, write_json
from tfnas.runtime.checkpoints import CheckpointFolder
from tfnas.runtime.devices import open_device
from tfnas.runtime.errors import UserError
from tfnas.runtime.params import stage_params
from tfnas.runtime.schema import Params
from tfnas.runtime.seeding import derive_seed, seed_everything
from tfnas.runtime.stage import Job
from tfnas.search.epoch import Loader
from tfnas.search.history import write_history
from tfnas.search.result import SearchResult, load_search_result
from tfnas.search.searcher import search
from tfnas.space import Architecture, Space, count_macs, count_params, load_space

CHECKPOINTS = Path("checkpoints")  # of the working directory, beside results/ and logs/
MIN_BATCH = 2  # BatchNorm needs two images

Samples = list[tuple[str, int]]


@dataclass(frozen=True)
class Constraint:
    """What a network is searched for: a space, a device's table, a latency."""

    space: Space
    table: LatencyTable
    target_ms: float


def read_constraint(params: Params, target: str, table_path: Path) -> Constraint:
    """The constraint of a target.

    Raises:
        UserError: the table is of another space or resolution, or no network reaches the target.
    """
    space = load_space(params.space)
    table = LatencyTable.load(table_path)
    table.check_fits(space, params.resolution, source=str(table_path))
    wanted = params.targets[target].constraint
    target_ms = resolve_target_ms(target, wanted.latency_ms, wanted.relative, space, table)
    return Constraint(space, table, target_ms)


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


def latency_metrics(architecture: Architecture, table: LatencyTable, target_ms: float) -> dict[str, float]:
    """Target, table latency, and how far the second is from the first (percent of the target)."""
    latency_ms = table.latency_ms(architecture)
    gap_percent = 100.0 * (latency_ms / target_ms - 1.0)
    return {"target_ms": target_ms, "table_latency_ms": latency_ms, "gap_percent": gap_percent}


def derive_architecture(constraint: Constraint, supernet: Path, target: str) -> Architecture:
    """The network of a searched supernet.

    Raises:
        UserError: the file is damaged, or was searched in another space or for another latency.
    """
    result = load_search_result(supernet, constraint.space)
    if result.target_ms != constraint.target_ms:
        raise UserError(
            f"{supernet}: was searched for {result.target_ms:.6g} ms, target {target} now asks for"
            f" {constraint.target_ms:.6g} ms; run search again"
        )
    return result.derive(f"{constraint.space.name}-{target}").architecture


def run_derive(job: Job, constraint: Constraint, architecture: Architecture) -> None:
    """Write architecture.json and metrics.json, with the latency measured end to end, into `job.out`."""
    from tfnas.latency import measure_architecture_ms

    profile = job.params.profile_latency
    measured = measure_architecture_ms(
        architecture,
        resolution=job.params.resolution,
        num_classes=profile.num_classes,
        batch_size=profile.batch_size,
        device=profile.device,
        threads=profile.threads,
        warmup_runs=profile.warmup_runs,
        repeats=job.params.derive.measure_repeats,
    )
    metrics = {
        **latency_metrics(architecture, constraint.table, constraint.target_ms),
        "measured_latency_ms": measured.median_ms,
        "macs": count_macs(architecture, job.params.resolution, profile.num_classes),
        "params": count_params(architecture, profile.num_classes),
        "depth": len(architecture.blocks),
    }
    architecture.save(job.out / "architecture.json")
    write_json(job.out / "metrics.json", metrics)
    job.run.log_metrics(metrics)


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
