"""The search job: from a parameter file and its inputs to the files that it writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tfnas.compute import distributed
from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed, seed_everything
from tfnas.data import ImageDataset, eval_transform, image_root, make_loader, read_samples, train_transform
from tfnas.jobs.artifacts import digest_file, digest_params, write_json
from tfnas.jobs.checkpoints import CheckpointFolder
from tfnas.jobs.errors import UserError
from tfnas.latency import LatencyTable
from tfnas.search.constraint import Constraint, latency_metrics
from tfnas.search.epoch import Loader
from tfnas.search.loop import run_warm_up, search
from tfnas.search.result import EpochRecord, SearchResult, WarmUp, operation_names, write_history
from tfnas.space import Space, load_space
from tfnas.stages.job import Job
from tfnas.stages.params import Params, stage_params
from tfnas.tracking.runs import Run

CHECKPOINTS = Path("checkpoints")  # of the working directory, beside results/ and logs/
MIN_BATCH = 2  # BatchNorm needs two images

Samples = list[tuple[str, int]]

logger = logging.getLogger("tfnas.search")


@dataclass(frozen=True)
class SearchInputs:
    """What a warm-up or a search reads; `others` are counted among the files that a checkpoint depends on."""

    train: Path  # train.csv and val.csv of build_subset
    val: Path
    images: Path  # the images/ folder of build_subset
    others: tuple[Path, ...] = ()  # warm_up's supernet.pt, profile_latency's latency_table.json

    @cached_property
    def digests(self) -> list[str]:
        """Of all files, taken once: the images may be many."""
        return [digest_file(path) for path in (self.train, self.val, self.images, *self.others)]


def open_checkpoints(params: Params, space: Space, inputs: SearchInputs, target: str | None = None) -> CheckpointFolder:
    """The checkpoints of a warm-up, or of the search for a target; those of other parameters or inputs are not seen."""
    stage = "warm_up" if target is None else "search"
    depends = [stage_params(params, stage, target), asdict(space), inputs.digests]
    folder = CHECKPOINTS / stage if target is None else CHECKPOINTS / stage / target
    return CheckpointFolder(folder, digest=digest_params(depends))


def interrupted_run(params: Params, inputs: SearchInputs, target: str | None = None) -> str | None:
    """Id of the tracking run of this very job, where one was interrupted."""
    saved = open_checkpoints(params, load_space(params.space), inputs, target).load()
    return None if saved is None else saved["mlflow_run_id"]


def run_warm_up_job(job: Job, inputs: SearchInputs) -> None:
    """Train the supernet with alpha and beta frozen; write supernet.pt, history.csv, metrics.json into `job.out`."""
    space, records = load_space(job.params.space), list[EpochRecord]()
    with _opened(job, space, inputs) as (work, checkpoints):
        warm_up = run_warm_up(space, name="warm_up", on_epoch=_log_to(job.run, space, records), **work)
        if distributed.rank() > 0:
            return
        warm_up.save(job.out / "supernet.pt", stage_params(job.params, "warm_up"))
        write_history(records, job.out / "history.csv")
        metrics = warm_up_metrics(records, warm_up.num_classes)
        write_json(job.out / "metrics.json", metrics)
        job.run.log_metrics(metrics)
        job.at_end.append(checkpoints.discard)


def run_search(job: Job, constraint: Constraint, warm_up: WarmUp, inputs: SearchInputs, *, target: str) -> None:
    """Search for a target and write supernet.pt, history.csv and metrics.json into `job.out`.

    The checkpoint is discarded when the job ends well, so that one that fails to write does not search again.
    """
    name, space = f"search/{target}", constraint.space
    with _opened(job, space, inputs, target) as (work, checkpoints):
        log = _log_to(job.run, space)
        result = search(
            space,
            table=constraint.table,
            target_ms=constraint.target_ms,
            warm_up=warm_up,
            name=name,
            on_epoch=log,
            **work,
        )
        if distributed.rank() > 0:
            return
        metrics = search_metrics(result, constraint.table, target)
        if job.params.search.elasticity_scaling is not False:
            _warn_off_target(metrics["gap_percent"], name)
        result.save(job.out / "supernet.pt")
        write_history(result.history, job.out / "history.csv")
        write_json(job.out / "metrics.json", metrics)
        job.run.log_metrics(metrics)
        job.at_end.append(checkpoints.discard)


@contextmanager
def _opened(
    job: Job, space: Space, inputs: SearchInputs, target: str | None = None
) -> Iterator[tuple[dict[str, Any], CheckpointFolder]]:
    """Device, processes, images and checkpoints: the arguments that `run_warm_up` and `search` have in common."""
    params = job.params
    device = open_device(params.device.name, params.device.threads)
    folder = open_checkpoints(params, space, inputs, target)
    seed_everything(derive_seed(params.seed, "search"))
    samples = read_samples(inputs.train), read_samples(inputs.val)
    num_classes = count_classes(*samples, source=str(inputs.train))
    train, val = _loaders(params, *samples, image_root(params.prepare_data.root, inputs.images), device)
    is_first = distributed.rank() == 0  # it alone writes
    with distributed.process_group(device), folder if is_first else nullcontext(folder) as checkpoints:
        work = {
            "train_loader": train,
            "val_loader": val,
            "params": params.search,
            "num_classes": num_classes,
            "seed": params.seed,
            "device": device,
            "precision": params.device.precision,
            "checkpoints": _OfRun(checkpoints, job.run.id),
        }
        yield work, checkpoints


class _OfRun:
    """Checkpoints that say which tracking run they belong to."""

    def __init__(self, folder: CheckpointFolder, run_id: str | None) -> None:
        self._folder, self._run_id = folder, run_id

    def load(self) -> dict[str, Any] | None:
        return self._folder.load()

    def save(self, state: dict[str, Any]) -> None:
        self._folder.save({**state, "mlflow_run_id": self._run_id})

    def newest(self) -> Path | None:
        return self._folder.newest()


def _log_to(run: Run, space: Space, records: list[EpochRecord] | None = None) -> Callable[[EpochRecord], None]:
    """Logs each epoch's numbers; keeps the records where a list is given."""
    names = operation_names(space)

    def log(record: EpochRecord) -> None:
        run.log_metrics(record.metrics(names), step=record.epoch)
        if records is not None:
            records.append(record)

    return log


def warm_up_metrics(history: list[EpochRecord], num_classes: int) -> dict[str, float]:
    """The last epoch in numbers; without any where there is none."""
    metrics: dict[str, float] = {"epochs": len(history), "num_classes": num_classes}
    if history:
        last = history[-1]
        metrics |= {
            "train_loss": last.train_loss,
            "train_top1_percent": last.train_top1,
            "val_top1_percent": last.val_top1,
        }
    return metrics


def search_metrics(result: SearchResult, table: LatencyTable, target: str) -> dict[str, float]:
    """The last epoch in numbers."""
    last = result.history[-1]
    assert last.expected_latency_ms is not None
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


def _loaders(params: Params, train: Samples, val: Samples, root: Path, device: Any) -> tuple[Loader, Loader]:
    """Shuffled whole batches: augmented ones for the weights, plain ones for alpha and beta."""
    batch_size, processes = params.search.batch_size, distributed.world_size()
    if batch_size < MIN_BATCH:
        raise UserError(f"params.yaml: search.batch_size: {batch_size} is too small for BatchNorm; write 2 or more")
    if batch_size % processes:
        raise UserError(
            f"params.yaml: search.batch_size: {batch_size} cannot be divided among {processes} processes; write a"
            f" multiple of {processes}"
        )
    options: dict[str, Any] = {
        "shuffle": True,
        "seed": derive_seed(params.seed, "search", "loader"),
        "workers": params.device.workers,
        "drop_last": True,
        "pin_memory": params.device.name != "cpu",
        "rank": distributed.rank(),
        "world_size": processes,
        "device": device,
    }
    share = batch_size // processes
    augmented, exif = train_transform(params.resolution, params.search.augmentation), params.prepare_data.exif
    return (
        make_loader(ImageDataset(root, train, augmented, exif=exif), share, **options),
        make_loader(ImageDataset(root, val, eval_transform(params.resolution), exif=exif), share, **options),
    )
