"""The on-disk format of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html), and writing it.

A batch file is a pickled dict: N labels, and (N, 3072) bytes, an image's 32 x 32 pixels of red, then of green, then
of blue. A meta file holds the names of the classes in the order of labels.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfnas.runtime.errors import UserError

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
SIZE = 32  # height and width
PICKLE_PROTOCOL = 4  # the first that holds bytes as they are


@dataclass(frozen=True)
class CifarFormat:
    """Names of a set's files and of the entries in them."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels_key: str
    names_key: str
    archive: str | None  # the file to unpack; None: prepare_data makes the set

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


def _like_cifar10(folder: str, archive: str | None) -> CifarFormat:
    train = tuple(f"data_batch_{number}" for number in range(1, 6))
    return CifarFormat(folder, train, "test_batch", "batches.meta", "labels", "label_names", archive)


FORMATS = {
    "cifar10": _like_cifar10("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": CifarFormat(
        "cifar-100-python", ("train",), "test", "meta", "fine_labels", "fine_label_names", "cifar-100-python.tar.gz"
    ),
    "shifted-digits": _like_cifar10("shifted-digits-batches-py", None),
}


def check_transfer_set(dataset: str, root: str | Path) -> None:
    """Raise UserError, saying where to put which file, unless all files of a set are there."""
    form = FORMATS[dataset]
    for name in form.files:
        path = Path(root) / form.folder / name
        if path.is_file():
            continue
        if form.archive is None:
            raise UserError(f"{path}: is missing; run prepare_data")
        raise UserError(
            f"{path}: is missing; unpack {form.archive} from {HOME} in {root}, write prepare_data.download: true, or"
            f" take {dataset} out of params.yaml"
        )


def write_cifar(
    folder: Path, form: CifarFormat, *, train: tuple[np.ndarray, list[int]], test: tuple[np.ndarray, list[int]]
) -> None:
    """Write the batch files into an existing folder, those of train as even as possible, in order.

    Args:
        train, test: (N, 32, 32, 3) uint8 images, N labels.
    """
    images, labels = train
    cuts = [len(labels) * part // len(form.train) for part in range(len(form.train) + 1)]
    for name, start, end in zip(form.train, cuts, cuts[1:], strict=False):
        _write_batch(folder / name, form, images[start:end], labels[start:end])
    _write_batch(folder / form.test, form, *test)


def write_meta(folder: Path, form: CifarFormat, classes: Sequence[str]) -> None:
    """Write the names of the classes."""
    (folder / form.meta).write_bytes(pickle.dumps({form.names_key: list(classes)}, PICKLE_PROTOCOL))


def _write_batch(path: Path, form: CifarFormat, images: np.ndarray, labels: list[int]) -> None:
    data = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(labels), 3 * SIZE * SIZE)
    batch = {"batch_label": path.name, form.labels_key: labels, "data": data}
    path.write_bytes(pickle.dumps(batch, PICKLE_PROTOCOL))
