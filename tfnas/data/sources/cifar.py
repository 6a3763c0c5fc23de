"""CIFAR-10, CIFAR-100, and sets written in their format.

One reader for all three, in place of torchvision's: that one admits only files with the MD5 of the two genuine sets,
and unpickles what it reads, so that a file from elsewhere could run code. Ours admits only arrays and plain values,
checks shapes and labels instead of MD5s, and yields the same pictures and labels (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tfnas.data.images.loader import PictureDataset
from tfnas.data.images.transforms import Transform
from tfnas.data.sources.cifar_files import FORMATS, SIZE, check_transfer_set, read_batch, read_classes


class CifarSet(PictureDataset):
    """Items are (image, label), the image as the transform gives it; `classes` in the order of labels.

    Args:
        images: (N, 32, 32, 3) uint8.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: Sequence[int],
        classes: list[str],
        transform: Transform | Callable[[Tensor], Any],
    ) -> None:
        self.images, self.labels, self.classes, self.transform = images, labels, classes, transform

    def picture(self, index: int) -> Tensor:
        return torch.from_numpy(self.images[index]).permute(2, 0, 1)


def load_transfer_set(
    dataset: str, root: str | Path, train: bool, transform: Transform | Callable[[Tensor], Any]
) -> CifarSet:
    """The training or the test images of `cifar10`, `cifar100` or `shifted-digits`.

    Args:
        root: folder that holds cifar-10-batches-py, cifar-100-python or shifted-digits-batches-py.

    Raises:
        UserError: a file is missing, damaged, no CIFAR file, or asks for code; names the file.
    """
    check_transfer_set(dataset, root)
    form = FORMATS[dataset]
    folder = Path(root) / form.folder
    classes = read_classes(folder / form.meta, form)
    batches = [read_batch(folder / name, form, len(classes)) for name in (form.train if train else (form.test,))]
    pixels = np.concatenate([data for data, _ in batches])
    images = np.ascontiguousarray(pixels.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))
    return CifarSet(images, [label for _, labels in batches for label in labels], classes, transform)


def transfer_root(params_root: str | None, dataset: str, made: Path) -> Path:
    """The folder to pass as `root`: `transfer.root`, or the one that prepare_data wrote for the sets it makes."""
    return made if params_root is None or FORMATS[dataset].archive is None else Path(params_root)
