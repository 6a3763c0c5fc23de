"""Batches whose order and augmentation follow from seed, epoch and image alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from tfnas.compute.seeding import derive_seed
from tfnas.data.colour import Colours
from tfnas.data.epoch_sampler import EpochSampler, Key
from tfnas.data.image_dataset import PictureDataset
from tfnas.data.transforms import Transform, View
from tfnas.runtime.errors import UserError

PREFETCHED_BATCHES = 4  # of each worker process

logger = logging.getLogger("tfnas.data")


@dataclass
class _Loaded:
    """A batch as it comes from a worker process; without images where none could be read."""

    images: Tensor | None  # views, (N, 3, R, R) uint8, or finished images
    labels: Tensor | None  # (N,)
    colours: list[Colours | None] | None  # of views; None: the images are finished
    faults: list[str]

    def pin_memory(self) -> _Loaded:
        """What the data loader calls; it would otherwise look into every number of `colours`."""
        if self.images is not None and self.labels is not None:
            self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


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
        self, loader: DataLoader[Any], sampler: EpochSampler, dataset: Dataset[Any], device: torch.device | None
    ) -> None:
        self._loader, self._sampler = loader, sampler
        self._device = torch.device("cpu") if device is None else device
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
        for loaded in self._loader:
            self._note(loaded.faults, nothing_left=loaded.images is None)
            images, labels = (part.to(self._device, non_blocking=True) for part in (loaded.images, loaded.labels))
            if loaded.colours is not None:
                assert self._transform is not None
                images = self._transform.finish(images, loaded.colours)
            yield images, labels

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
        device: where colours are changed and images normalised, and so where batches are; by default the CPU.

    The second step of a transform is done here, not by the workers: they hand over 8 bits a value in place of 32, and
    the memory that passes between processes costs more time than that step.
    """
    length = len(dataset)  # type: ignore[arg-type]
    sampler = EpochSampler(
        length, batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last, rank=rank, world_size=world_size
    )
    loader = DataLoader(
        _SeededDataset(dataset, seed),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED_BATCHES if workers else None,
        pin_memory=pin_memory,
        collate_fn=_take,  # type: ignore[arg-type]
        generator=torch.Generator(),  # else each pass would draw from torch's global one
    )
    return EpochLoader(loader, sampler, dataset, device)


class _SeededDataset(Dataset[Any]):
    """Whole batches, each image under a random state of its own; an image that cannot be read comes as its error.

    A worker's exception would reach the main process with a traceback in its text.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.has_views = isinstance(dataset, PictureDataset) and isinstance(dataset.transform, Transform)

    def __getitems__(self, keys: Sequence[Key]) -> _Loaded:
        items, faults = [], []
        load = self._view if self.has_views else self._item
        for epoch, index in keys:
            try:
                items.append(load(index, derive_seed(self.seed, "augmentation", epoch, index)))
            except UserError as error:
                faults.append(str(error))
        if not items:
            return _Loaded(None, None, None, faults)
        if not self.has_views:
            images, labels = default_collate(items)
            return _Loaded(images, labels, None, faults)
        pixels = torch.stack([view.pixels for view, _ in items])
        return _Loaded(pixels, torch.tensor([label for _, label in items]), [view.colours for view, _ in items], faults)

    def _view(self, index: int, seed: int) -> tuple[View, int]:
        return self.dataset.view(index, Random(seed)), self.dataset.labels[index]  # type: ignore[attr-defined]

    def _item(self, index: int, seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.dataset[index]


def _take(loaded: _Loaded) -> _Loaded:
    return loaded
