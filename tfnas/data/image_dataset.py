"""A list of images as a torch data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from tfnas.data.manifest import Sample
from tfnas.data.stores import open_store
from tfnas.data.transforms import Transform, View

CACHE_BYTES = 256 << 20  # of decoded pictures that a process keeps


class PictureDataset(Dataset[tuple[Any, int]]):
    """Pictures with labels; items are (image, label), the image as the transform gives it.

    The loader takes views from it and finishes them in batches, where the transform is one of `tfnas.data.transforms`.
    """

    labels: Sequence[int]
    transform: Transform | Callable[[Tensor], Any]
    skips_broken = False  # whether an image that cannot be read is left out

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

    A set that fits into CACHE_BYTES when decoded is decoded once a process; that changes no result.

    Args:
        root: folder that the paths are relative to, or one that says where its images are (`tfnas.data.stores`).
        samples: (path, label) of each image.
        exif: apply or ignore EXIF turns; None: as the folder says (`tfnas.data.stores.open_store`).

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
            if picture.numel() * len(self) > CACHE_BYTES:  # the first one stands for all, as the later ones do
                self._kept = None
                return picture
            self._kept[index] = picture
        return self._kept[index]
