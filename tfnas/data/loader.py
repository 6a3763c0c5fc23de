"""Batches whose order and augmentation follow from seed, epoch and image alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from tfnas.data.colour import Colours
from tfnas.data.image_dataset import PictureDataset
from tfnas.data.transforms import Transform
from tfnas.runtime.errors import UserError
from tfnas.runtime.seeding import derive_seed

PREFETCHED_BATCHES = 4  # of each worker process
Key = tuple[int, int]  # epoch, index

logger = logging.getLogger("tfnas.data")


class _Views(NamedTuple):
    """A batch between the two steps of its transform."""

    pixels: Tensor  # (N, 3, R, R) uint8
    colours: list[Colours | None]
    labels: Tensor  # (N,)


class _Loaded(NamedTuple):
    """What comes from a worker process."""

    batch: Any  # _Views, or (images, labels); None where no image could be read
    faults: list[str]


class EpochLoader:
    """Batches of (N, 3, H, W) images and (N,) labels; a new epoch's after `set_epoch`.

    What an epoch gives depends on the seed and the epoch only: not on the number of worker processes, not on earlier
    epochs, not on torch's global generator, which it leaves as it was. So a resumed job sees the same images.

    An image that cannot be read is left out of its batch where the data set says so (`prepare_data.on_bad_image:
    skip`), with a line in the log; `broken` holds what was said.

    Raises:
        UserError: on iterating, with an image that cannot be read, or a whole batch of them where they are left out;
            also out of a worker process, as one line.
    """

    def __init__(
        self, loader: DataLoader[Any], sampler: _EpochSampler, dataset: Dataset[Any], device: torch.device | None
    ) -> None:
        self._loader, self._sampler, self._device = loader, sampler, device
        self._transform = getattr(dataset, "transform", None)
        self._skips = getattr(dataset, "skips_broken", False)
        self.broken: set[str] = set()

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the order and the augmentation of an epoch, and leave out its first `start` batches, unread.

        So a job that was stopped in the middle of an epoch goes on with the batch that it had not seen.
        """
        self._sampler.epoch, self._sampler.start = epoch, start

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever `start` is."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch, faults in self._loader:
            self._note(faults, nothing_left=batch is None)
            if isinstance(batch, _Views):
                assert self._device is not None
                pixels = batch.pixels.to(self._device, non_blocking=True)
                yield (
                    self._transform.finish(pixels, batch.colours),
                    batch.labels.to(self._device, non_blocking=True),
                )
            else:
                yield batch[0], batch[1]

    def _note(self, faults: list[str], *, nothing_left: bool) -> None:
        if faults and (nothing_left or not self._skips):
            raise UserError(faults[0])
        for fault in faults:
            if fault not in self.broken:
                logger.warning("left out: %s", fault)
        self.broken.update(faults)


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    drop_last: bool,
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
        workers: processes that load; 0 loads in this one. Changes no result.
        pin_memory: for a fast copy to a GPU.
        rank, world_size: this process's share of a data-parallel run. The shares of a batch make up the batch that one
            process of world_size times the batch size would see; without drop_last the last shares may differ in size.
        device: a GPU that changes colours and normalises in place of the workers, which then hand over 8 bits a value.
    """
    length = len(dataset)  # type: ignore[arg-type]
    sampler = _EpochSampler(
        length, batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last, rank=rank, world_size=world_size
    )
    on_device = device is not None and device.type != "cpu"
    loader = DataLoader(
        _SeededDataset(dataset, seed, finishes=not on_device),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED_BATCHES if workers else None,
        pin_memory=pin_memory,
        collate_fn=_take,
        generator=torch.Generator(),  # else each pass would draw from torch's global one
    )
    return EpochLoader(loader, sampler, dataset, device if on_device else None)


class _EpochSampler(Sampler[list[Key]]):
    """Gives the indices of a batch together with the epoch, which so reaches workers that live on."""

    def __init__(
        self, length: int, batch_size: int, *, seed: int, shuffle: bool, drop_last: bool, rank: int, world_size: int
    ) -> None:
        assert batch_size > 0 and 0 <= rank < world_size
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world_size, self.whole = rank, world_size, batch_size * world_size
        usable = length - length % self.whole if drop_last else length
        self.bounds = list(range(0, max(0, usable - rank), self.whole))  # of batches in which this rank has a share
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, start, indices = self.epoch, self.start, list(range(self.length))
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            indices = torch.randperm(self.length, generator=generator).tolist()
        for bound in self.bounds[start:]:
            yield [(epoch, index) for index in indices[bound + self.rank : bound + self.whole : self.world_size]]


class _SeededDataset(Dataset[Any]):
    """Whole batches, each image under a random state of its own; an image that cannot be read comes as its error.

    A worker's exception would reach the main process with a traceback in its text.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, *, finishes: bool) -> None:
        self.dataset, self.seed, self.finishes = dataset, seed, finishes
        has_views = isinstance(dataset, PictureDataset) and isinstance(dataset.transform, Transform)
        self._load = self._view if has_views else self._item
        self._join = self._join_views if has_views else default_collate

    def __getitems__(self, keys: Sequence[Key]) -> _Loaded:
        items, faults = [], []
        for epoch, index in keys:
            try:
                items.append(self._load(index, derive_seed(self.seed, "augmentation", epoch, index)))
            except UserError as error:
                faults.append(str(error))
        return _Loaded(self._join(items) if items else None, faults)

    def _view(self, index: int, seed: int) -> Any:
        return self.dataset.view(index, Random(seed)), self.dataset.labels[index]  # type: ignore[attr-defined]

    def _item(self, index: int, seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.dataset[index]

    def _join_views(self, items: list[Any]) -> Any:
        pixels = torch.stack([view.pixels for view, _ in items])
        colours = [view.colours for view, _ in items]
        labels = torch.tensor([label for _, label in items])
        if not self.finishes:
            return _Views(pixels, colours, labels)
        return self.dataset.transform.finish(pixels, colours), labels  # type: ignore[attr-defined]


def _take(loaded: _Loaded) -> _Loaded:
    return loaded
