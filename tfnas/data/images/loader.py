"""Image data sets, and batches of them whose order and augmentation follow from seed, epoch and image alone."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from tfnas.compute.seeding import derive_seed
from tfnas.data.images.color import Colors
from tfnas.data.images.order import balanced as balanced_order
from tfnas.data.images.order import numbered, shuffled
from tfnas.data.images.stores import open_store
from tfnas.data.images.transforms import Transform, View
from tfnas.data.manifest import Sample
from tfnas.jobs.errors import UserError
from tfnas.jobs.progress import announce

Batch = tuple[Tensor, Tensor]  # (N, 3, H, W) images, (N,) labels
Key = tuple[int, int, int]  # epoch, index, how often the epoch has had that index before
CACHE_BYTES = 256 << 20  # of decoded pictures kept by each process
PREFETCHED_BATCHES = 4  # of each worker process
# Linux's way up to Python 3.13. From 3.14 on its default imports torch anew in each process, and pickles the data set.
WORKERS_START = "fork" if sys.platform == "linux" else None
SHARED_MEMORY = "/dev/shm"  # through which worker processes hand over their batches
SHARED_ADVICE = f"enlarge {SHARED_MEMORY} (docker run --shm-size=1g), or write device.workers: 0"
_KILLED = ("DataLoader worker", "shared memory(shm)", "/torch_")  # in torch's messages about a lost worker

logger = logging.getLogger("tfnas.data")


class Loader(Sized, Protocol):
    """Batches of a data set: an `EpochLoader`, or torch's DataLoader."""

    def __iter__(self) -> Iterator[Batch]: ...


class ResumableLoader(Loader, Protocol):
    """A loader that can start in the middle of an epoch, as an `EpochLoader` can."""

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the order and the augmentation of an epoch, and the batch to start with."""


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    drop_last: bool,
    balanced: bool = False,
    workers: int = 0,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
) -> EpochLoader:
    """Batches of a data set of (image, label) items.

    Args:
        batch_size: of one process of `world_size`.
        shuffle: another order each epoch, else the data set's own.
        seed: of order and augmentation; the same in all processes of `world_size`.
        drop_last: leave out a smaller last batch.
        balanced: shuffle so that an epoch has each class equally often, and as many images as without
            (`tfnas.data.images.order.balanced`); the data set must have `labels`. An image that comes twice is
            augmented in two ways.
        workers: loading processes; 0 loads in this one. Changes no result. Fewer are started, with a warning, where
            SHARED_MEMORY has no room for their batches.
        pin_memory: for a fast copy to a GPU.
        rank, world_size: this process's share of a data-parallel run. Together, the shares of a batch are the batch
            that one process with world_size times the batch size would see; without drop_last the last shares may
            differ in size.
        device: where colors are changed and images normalized, and where batches end up; by default the CPU.

    The second step of a transform is done here and not by the workers, which hand over 8 bits per value instead of 32:
    passing memory between processes costs more time than that step.
    """
    workers = _workers_that_fit(workers, dataset, batch_size)
    sampler = EpochSampler(
        len(dataset),  # type: ignore[arg-type]
        batch_size,
        seed=seed,
        shuffle=shuffle,
        labels=dataset.labels if balanced else None,  # type: ignore[attr-defined]
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    loader = DataLoader(
        _SeededDataset(dataset, seed),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED_BATCHES if workers else None,
        multiprocessing_context=WORKERS_START if workers else None,
        pin_memory=pin_memory,
        collate_fn=_take,  # type: ignore[arg-type]
        generator=torch.Generator(),  # else each pass would draw from torch's global one
    )
    return EpochLoader(loader, sampler, dataset, device)


class EpochLoader:
    """Batches of (N, 3, H, W) images and (N,) labels; a new epoch's after `set_epoch`.

    The batches depend on the seed and the epoch only: not on the number of worker processes, on earlier epochs or on
    torch's global generator, which is left untouched. So a resumed job sees the same images.

    Where the data set allows it (`prepare_data.on_bad_image: skip`), an unreadable image is dropped from its batch with
    a line in the log; `broken` collects these lines.

    Raises:
        UserError: on iterating, for an unreadable image, or for a whole batch of them where they are skipped; as one
            line even from a worker process.
    """

    def __init__(
        self, loader: DataLoader[Any], sampler: EpochSampler, dataset: Dataset[Any], device: torch.device | None
    ) -> None:
        self._loader, self._sampler = loader, sampler
        self._device = torch.device("cpu") if device is None else device
        self._transform = getattr(dataset, "transform", None)
        self._skips = getattr(dataset, "skips_broken", False)
        self.broken: set[str] = set()

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the order and the augmentation of an epoch, and skip its first `start` batches unread.

        So a job that was stopped in the middle of an epoch resumes with the next batch.
        """
        self._sampler.epoch, self._sampler.start = epoch, start

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever `start` is."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[Batch]:
        for loaded in self._batches():
            self._note(loaded.faults, nothing_left=loaded.images is None)
            assert loaded.images is not None and loaded.labels is not None
            images, labels = (part.to(self._device, non_blocking=True) for part in (loaded.images, loaded.labels))
            if loaded.colors is not None:
                assert self._transform is not None
                images = self._transform.finish(images, loaded.colors)
            yield images, labels

    def _batches(self) -> Iterator[_Loaded]:
        try:
            yield from self._loader
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            if not any(words in str(error) for words in _KILLED):
                raise
            free = _free_shared_memory()
            left = "" if free is None else f" ({free / 1e6:.1f} MB are left)"
            raise UserError(
                f"a data loading process died ({reason}): if {SHARED_MEMORY} was full{left}, {SHARED_ADVICE}; if the"
                " memory was, write fewer device.workers"
            ) from None

    def _note(self, faults: list[str], *, nothing_left: bool) -> None:
        if faults and (nothing_left or not self._skips):
            raise UserError(faults[0])
        for fault in faults:
            if fault not in self.broken:
                logger.warning("left out: %s", fault)
        self.broken.update(faults)


class EpochSampler(Sampler[list[Key]]):
    """Yields each batch as keys with the epoch, so that it reaches persistent workers, too.

    Of several processes, each gets its own share of every batch.

    Args:
        labels: of the images, to have each class equally often; None: each image once.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        labels: Sequence[int] | None = None,
        drop_last: bool,
        rank: int,
        world_size: int,
    ) -> None:
        assert batch_size > 0 and 0 <= rank < world_size and (shuffle or labels is None)
        self.length, self.seed, self.shuffle, self.labels = length, seed, shuffle, labels
        self.rank, self.world_size, self.whole = rank, world_size, batch_size * world_size
        usable = length - length % self.whole if drop_last else length
        self.bounds = list(range(0, max(0, usable - rank), self.whole))  # of batches in which this rank has a share
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, start, order = self.epoch, self.start, self._order(self.epoch)
        for bound in self.bounds[start:]:
            yield [(epoch, *place) for place in order[bound + self.rank : bound + self.whole : self.world_size]]

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        """The indices of an epoch, and how often each came before; a function of seed and epoch alone."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        if self.labels is not None:
            return list(numbered(balanced_order(self.labels, generator)))
        return [(index, 0) for index in (shuffled(self.length, generator) if self.shuffle else range(self.length))]


class PictureDataset(Dataset[tuple[Any, int]]):
    """Labeled pictures; items are (transformed image, label).

    Where the transform is one of `tfnas.data.images.transforms`, the loader takes views from it and finishes them in
    batches.
    """

    labels: Sequence[int]
    transform: Transform | Callable[[Tensor], Any]
    skips_broken = False  # whether images that cannot be read are skipped

    def picture(self, index: int) -> Tensor:
        """(3, H, W) uint8."""
        raise NotImplementedError

    def view(self, index: int, random: Random) -> View:
        """The first step of the transform."""
        assert isinstance(self.transform, Transform)
        return self.transform.view(self.picture(index), random)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.picture(index)), self.labels[index]


class ImageDataset(PictureDataset):
    """Images of a folder.

    A set whose decoded pictures fit into CACHE_BYTES is decoded once per process; that changes no result.

    Args:
        root: folder that the paths are relative to, or one whose source.json says where the images are
            (`tfnas.data.images.stores`).
        samples: (path, label) of each image.
        exif: apply or ignore EXIF turns; None: as the folder says (`tfnas.data.images.stores.open_store`).

    Raises:
        UserError: on reading an item that is missing or broken; names the file.
    """

    def __init__(
        self,
        root: str | Path,
        samples: Sequence[Sample],
        transform: Transform | Callable[[Tensor], Any],
        *,
        exif: str | None = None,
    ) -> None:
        self.root, self.samples, self.transform = Path(root), samples, transform
        self.labels = [label for _, label in samples]
        self._store, self.skips_broken = open_store(self.root, exif)
        self._kept: dict[int, Tensor] | None = {}  # None: too many to keep

    def picture(self, index: int) -> Tensor:
        if self._kept is None:
            return self._store.read(self.samples[index][0])
        if index not in self._kept:
            picture = self._store.read(self.samples[index][0])
            if picture.numel() * len(self) > CACHE_BYTES:  # judged by the first one alone
                self._kept = None
                return picture
            self._kept[index] = picture
        return self._kept[index]


@dataclass
class _Loaded:
    """A batch from a worker process; without images where none could be read."""

    images: Tensor | None  # views, (N, 3, R, R) uint8, or finished images
    labels: Tensor | None  # (N,)
    colors: list[Colors | None] | None  # of views; None: the images are finished
    faults: list[str]

    def pin_memory(self) -> _Loaded:
        """Called by the data loader, which would otherwise walk through every number of `colors`."""
        if self.images is not None and self.labels is not None:
            self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


class _SeededDataset(Dataset[Any]):
    """Whole batches, each image with its own random state; an unreadable image comes as its error message.

    A worker's exception would reach the main process with a traceback in its text.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.has_views = isinstance(dataset, PictureDataset) and isinstance(dataset.transform, Transform)

    def __getitems__(self, keys: Sequence[Key]) -> _Loaded:
        items, faults = [], []
        load = self._view if self.has_views else self._item
        for epoch, index, earlier in keys:
            again = (earlier,) if earlier else ()
            try:
                items.append(load(index, derive_seed(self.seed, "augmentation", epoch, index, *again)))
            except UserError as error:
                faults.append(str(error))
        if not items:
            return _Loaded(None, None, None, faults)
        if self.has_views:
            pixels, labels = (
                torch.stack([view.pixels for view, _ in items]),
                torch.tensor([label for _, label in items]),
            )
            return _passed_on(_Loaded(pixels, labels, [view.colors for view, _ in items], faults))
        images, labels = default_collate(items)
        return _passed_on(_Loaded(images, labels, None, faults))

    def _view(self, index: int, seed: int) -> tuple[View, int]:
        return self.dataset.view(index, Random(seed)), self.dataset.labels[index]  # type: ignore[attr-defined]

    def _item(self, index: int, seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.dataset[index]


def _passed_on(loaded: _Loaded) -> _Loaded:
    """The batch, or an error where SHARED_MEMORY is full, on which torch would wait forever."""
    free = _free_shared_memory() if get_worker_info() is not None else None
    if free is None or not isinstance(loaded.images, Tensor) or loaded.images.nbytes <= free:
        return loaded
    needed = loaded.images.nbytes / 1e6
    return _Loaded(
        None,
        None,
        None,
        [f"{SHARED_MEMORY} has {free / 1e6:.1f} MB free, and a batch needs {needed:.1f} MB; {SHARED_ADVICE}"],
    )


def _take(loaded: _Loaded) -> _Loaded:
    return loaded


def _workers_that_fit(workers: int, dataset: Dataset[Any], batch_size: int) -> int:
    """As many workers as SHARED_MEMORY has room for; a full one would kill them with a bus error."""
    free, needed = _free_shared_memory(), PREFETCHED_BATCHES * batch_size * _image_bytes(dataset)
    if free is None or workers * needed <= free:
        return workers
    fitting = int(free // needed)
    announce(
        logger,
        f"device.workers is {workers}, but {SHARED_MEMORY} has room for {fitting} ({free / 1e6:.1f} MB free,"
        f" {needed / 1e6:.1f} MB needed by each): {fitting} are started; {SHARED_ADVICE}",
    )
    return fitting


def _image_bytes(dataset: Dataset[Any]) -> int:
    """Bytes that one image takes on its way from a worker process, as far as its transform tells."""
    transform = getattr(dataset, "transform", None)
    last = getattr(transform, "transforms", [transform])[-1]  # of a Compose
    values = 3 * getattr(last, "resolution", 0) ** 2
    return values if isinstance(transform, Transform) else 4 * values  # views of 8 bits, or finished images


def _free_shared_memory() -> int | None:
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # a system without
        return None
