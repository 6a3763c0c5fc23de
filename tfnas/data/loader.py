"""Batches whose order and augmentation follow from seed, epoch and image alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from tfnas.runtime.errors import UserError
from tfnas.runtime.seeding import derive_seed

Key = tuple[int, int]  # epoch, index


class EpochLoader:
    """Batches of (N, 3, H, W) images and (N,) labels; a new epoch's after `set_epoch`.

    What an epoch gives depends on the seed and the epoch only: not on the number of worker processes, not on earlier
    epochs, not on torch's global generator, which it leaves as it was. So a resumed job sees the same images.

    Raises:
        UserError: on iterating, with an image that cannot be read; also out of a worker process, as one line.
    """

    def __init__(self, loader: DataLoader[Any], sampler: _EpochSampler) -> None:
        self._loader, self._sampler = loader, sampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of an epoch."""
        self._sampler.epoch = epoch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise UserError(str(batch))  # not itself: this frame holds it, a cycle that keeps workers alive
            yield batch[0], batch[1]


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    drop_last: bool,
    workers: int = 0,
    pin_memory: bool = False,
    part: tuple[int, int] = (0, 1),
) -> EpochLoader:
    """Batches of a data set of (image, label) items.

    Args:
        shuffle: another order each epoch, else the data set's own.
        seed: of order and augmentation.
        drop_last: leave out a smaller last batch.
        workers: processes that load; 0 loads in this one. Changes no result.
        pin_memory: for a fast copy to a GPU.
        part: (number of this process, number of processes). Each gets its slice of every batch, so that all together
            see the images that one alone would; batch_size must be a multiple of the second, and drop_last be set.
    """
    number, parts = part
    assert batch_size % parts == 0 and (parts == 1 or drop_last)
    share = batch_size // parts
    sampler = _EpochSampler(len(dataset), seed=seed, shuffle=shuffle)  # type: ignore[arg-type]
    if parts > 1:
        sampler = _PartSampler(len(dataset), seed=seed, shuffle=shuffle, number=number, parts=parts, share=share)  # type: ignore[arg-type]
    loader = DataLoader(
        _SeededDataset(dataset, seed),
        share,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        collate_fn=_collate,
        generator=torch.Generator(),  # else each pass would draw from torch's global one
    )
    return EpochLoader(loader, sampler)


class _EpochSampler(Sampler[Key]):
    """Gives each index together with the epoch, which so reaches workers that live on."""

    def __init__(self, length: int, *, seed: int, shuffle: bool) -> None:
        self.length, self.seed, self.shuffle, self.epoch = length, seed, shuffle, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        epoch, indices = self.epoch, list(range(self.length))
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            indices = torch.randperm(self.length, generator=generator).tolist()
        return ((epoch, index) for index in indices)


class _PartSampler(_EpochSampler):
    """The indices of one process: its slice of every whole batch."""

    def __init__(self, length: int, *, seed: int, shuffle: bool, number: int, parts: int, share: int) -> None:
        super().__init__(length, seed=seed, shuffle=shuffle)
        self.number, self.parts, self.share = number, parts, share

    def __len__(self) -> int:
        return self.length // (self.parts * self.share) * self.share

    def __iter__(self) -> Iterator[Key]:
        keys, batch = list(super().__iter__()), self.parts * self.share
        begins = range(self.number * self.share, self.length // batch * batch, batch)
        return (key for begin in begins for key in keys[begin : begin + self.share])


class _SeededDataset(Dataset[Any]):
    """Items under a random state of their own; an image that cannot be read comes as its error.

    A worker's exception would reach the main process with a traceback in its text.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        generator = torch.default_generator  # torch.manual_seed seeds it too, but formats three tracebacks each time
        state = generator.get_state()
        generator.manual_seed(derive_seed(self.seed, "augmentation", epoch, index))
        try:
            return self.dataset[index]
        except UserError as error:
            return error
        finally:
            generator.set_state(state)


def _collate(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, UserError)), None) or default_collate(items)
