"""CIFAR-10 and CIFAR-100 as a data set to search and train on: paths are `<folder>/<batch file>/<number>`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfnas.data.cifar_format import FORMATS, SIZE, check_transfer_set
from tfnas.data.cifar_pickle import read_batch, read_classes
from tfnas.data.manifest import ManifestRecord
from tfnas.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_BYTES = 3 * SIZE * SIZE


class CifarStore:
    """The images of the batch files, which are read whole; loading processes share them."""

    def __init__(self, root: Path, dataset: str) -> None:
        check_transfer_set(dataset, root)
        self.root, form = root, FORMATS[dataset]
        num_classes = len(read_classes(root / form.folder / form.meta, form))
        self._batches: dict[str, np.ndarray] = {}
        for name in (*form.train, form.test):
            pixels, _ = read_batch(root / form.folder / name, form, num_classes)
            rows = pixels.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
            self._batches[f"{form.folder}/{name}"] = np.ascontiguousarray(rows)  # (N, H, W, 3)

    def read(self, path: str) -> Tensor:
        name, _, number = path.rpartition("/")
        batch = self._batches.get(name)
        if batch is None or not number.isdigit() or int(number) >= len(batch):
            raise UserError(f"{self.root / path}: there is no such CIFAR image; run prepare_data again")
        import torch

        return torch.from_numpy(batch[int(number)]).permute(2, 0, 1)


def list_cifar(root: Path, dataset: str) -> list[ManifestRecord]:
    """Records of all images, the test images as `val`, sorted.

    Raises:
        UserError: a batch file is missing or damaged.
    """
    check_transfer_set(dataset, root)
    form = FORMATS[dataset]
    classes = read_classes(root / form.folder / form.meta, form)
    records = []
    for split, names in (("train", form.train), ("val", (form.test,))):
        for name in names:
            _, labels = read_batch(root / form.folder / name, form, len(classes))
            records += [
                ManifestRecord(split, classes[label], f"{form.folder}/{name}/{number:05d}", IMAGE_BYTES)
                for number, label in enumerate(labels)
            ]
    return sorted(records)
