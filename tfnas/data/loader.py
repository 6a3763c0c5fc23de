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

    def __init__(self, loader: DataLoader[Any], sampler: _EpochBatches) -> None:
        self._loader, self._sampler = loader, sampler

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the order and the augmentation of an epoch, and the batch to start with; none before it is read."""
        self._sampler.epoch, self._sampler.start = epoch, start

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
    rank: int = 0,
    world_size: int = 1,
) -> EpochLoader:
    """Batches of a data set of (image, label) items.

    Args:
        batch_size: of this process's batches.
        shuffle: another order each epoch, else the data set's own.
        seed: of order and augmentation.
        drop_last: leave out a smaller last batch.
        workers: processes that load; 0 loads in this one. Changes no result.
        pin_memory: for a fast copy to a GPU.
        rank, world_size: which of how many processes this is; their batches together are those of one process with
            `world_size` times the batch size, each of which they share out in their order.
    """
    sampler = _EpochBatches(
        len(dataset),  # type: ignore[arg-type]
        batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    loader = DataLoader(
        _SeededDataset(dataset, seed),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        collate_fn=_collate,
        generator=torch.Generator(),  # else each pass would draw from torch's global one
    )
    return EpochLoader(loader, sampler)


class _EpochBatches(Sampler[list[Key]]):
    """Gives each index together with the epoch, which so reaches workers that live on."""

    def __init__(
        self, length: int, batch_size: int, *, seed: int, shuffle: bool, drop_last: bool, rank: int, world_size: int
    ) -> None:
        self.length, self.batch_size, self.seed, self.shuffle = length, batch_size, seed, shuffle
        self.drop_last, self.rank, self.world_size = drop_last, rank, world_size
        self.epoch = self.start = 0

    def __len__(self) -> int:
        """Batches of an epoch, wherever it starts."""
        whole, rest = divmod(self.length, self.batch_size * self.world_size)
        return whole + int(not self.drop_last and rest > self.rank * self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = self.epoch, self._order()
        for batch in range(self.start, len(self)):
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield [(epoch, index) for index in order[first : first + self.batch_size]]

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.length))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        return torch.randperm(self.length, generator=generator).tolist()


class _SeededDataset(Dataset[Any]):
    """Items under a random state of their own; an image that cannot be read comes as its error.

    A worker's exception would reach the main process with a traceback in its text.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "augmentation", epoch, index))
            try:
                return self.dataset[index]
            except UserError as error:
                return error


def _collate(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, UserError)), None) or default_collate(items)
