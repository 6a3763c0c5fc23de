"""Which images make up each batch of an epoch, of each process."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from tfnas.compute.seeding import derive_seed

Key = tuple[int, int]  # epoch, index


class EpochSampler(Sampler[list[Key]]):
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
