"""What a warm-up and a search have in common: device, processes, images, checkpoints, and what they log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.compute import distributed
from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed, seed_everything
from tfnas.data import ImageDataset, eval_transform, image_root, make_loader, read_samples, train_transform
from tfnas.data.images.loader import Loader
from tfnas.jobs.artifacts import digest_params
from tfnas.jobs.checkpoints import CHECKPOINTS, CheckpointFolder
from tfnas.jobs.errors import UserError
from tfnas.search.epoch import Loaders
from tfnas.search.loop import SearchCheckpoints
from tfnas.search.result import EpochRecord, operation_names
from tfnas.search.state import Setting
from tfnas.space import Space

if TYPE_CHECKING:
    from tfnas.stages.job import Job
    from tfnas.stages.params import Params
    from tfnas.tracking.runs import Run

MIN_BATCH = 2  # BatchNorm needs two images

Samples = list[tuple[str, int]]


def open_checkpoints(job: Job, space: Space) -> CheckpointFolder:
    """The checkpoints of a warm-up, or of the search for a target; those of other parameters or inputs are not seen."""
    depends = [job.values, asdict(space), job.input_digests]
    return CheckpointFolder(CHECKPOINTS.joinpath(*job.name), digest=digest_params(depends))


def interrupted_run(job: Job, space: Space) -> str | None:
    """Id of the tracking run of this very job, where one was interrupted."""
    saved = open_checkpoints(job, space).load()
    return None if saved is None else saved["mlflow_run_id"]


@dataclass(frozen=True)
class Session:
    """The arguments that `run_warm_up` and `search` have in common."""

    loaders: Loaders
    setting: Setting
    checkpoints: SearchCheckpoints
    discard: Callable[[], None]  # removes the checkpoints


@contextmanager
def open_session(job: Job, space: Space) -> Iterator[Session]:
    """Device, processes, images and checkpoints of a job."""
    params = job.params
    device = open_device(params.device.name, params.device.threads)
    folder = open_checkpoints(job, space)
    seed_everything(derive_seed(params.seed, "search"))
    samples = read_samples(job.inputs["train"]), read_samples(job.inputs["val"])
    num_classes = count_classes(*samples, source=str(job.inputs["train"]))
    root = image_root(params.prepare_data.root, job.inputs["images"])
    loaders = Loaders(*search_loaders(params, samples, root, device), num_classes)
    setting = Setting(
        params.search, params.seed, device, params.device.precision, "/".join(job.name), params.derive.within
    )
    is_first = distributed.rank() == 0  # it alone writes
    with distributed.process_group(device), folder if is_first else nullcontext(folder) as checkpoints:
        yield Session(loaders, setting, _OfRun(checkpoints, job.run.id), checkpoints.discard)


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


def log_to(run: Run, space: Space, records: list[EpochRecord] | None = None) -> Callable[[EpochRecord], None]:
    """Logs each epoch's numbers; keeps the records where a list is given."""
    names = operation_names(space)

    def log(record: EpochRecord) -> None:
        run.log_metrics(record.metrics(names), step=record.epoch)
        if records is not None:
            records.append(record)

    return log


def count_classes(train: Samples, val: Samples, *, source: str) -> int:
    """Number of classes, labels being 0, 1, ...

    Raises:
        UserError: fewer than two.
    """
    num_classes = 1 + max((label for _, label in train + val), default=-1)
    if num_classes < 2:
        raise UserError(f"{source}: has {num_classes} classes; a search needs 2 or more (build_subset.groups)")
    return num_classes


def search_loaders(params: Params, samples: tuple[Samples, Samples], root: Path, device: Any) -> tuple[Loader, Loader]:
    """Shuffled whole batches: augmented ones for the weights, plain ones for alpha and beta."""
    train, val = samples
    augmented, exif = train_transform(params.resolution, params.search.augmentation), params.prepare_data.exif
    share, options = _batches(params, device)
    dataset = ImageDataset(root, train, augmented, exif=exif)
    return make_loader(dataset, share, **options), held_out_loader(params, val, root, device)


def held_out_loader(params: Params, samples: Samples, root: Path, device: Any) -> Loader:
    """The 20 % that do not train the weights, not augmented: shuffled whole batches.

    Raises:
        UserError: batches that BatchNorm or the processes cannot take.
    """
    share, options = _batches(params, device)
    dataset = ImageDataset(root, samples, eval_transform(params.resolution), exif=params.prepare_data.exif)
    return make_loader(dataset, share, **options)


def _batches(params: Params, device: Any) -> tuple[int, dict[str, Any]]:
    """A process's part of a batch, and the other arguments of a loader."""
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
    return batch_size // processes, options
