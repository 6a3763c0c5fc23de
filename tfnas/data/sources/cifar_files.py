"""The on-disk format of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html), and writing it.

A batch file is a pickled dict: N labels, and (N, 3072) bytes, an image's 32 x 32 pixels of red, then of green, then
of blue. A meta file holds the names of the classes in the order of labels.

The pickles are read without running their code. In a manifest, paths are `<folder>/<batch file>/<number>`.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from tfnas.data.manifest import ManifestRecord
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

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
    """Write the batch files into an existing folder, dividing train as evenly as possible, in order.

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


_ADMITTED = {  # what pickled arrays and bytes are made of, under the names of NumPy 1 and 2
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits dicts, lists, strings, bytes, numbers and NumPy arrays."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote the genuine files

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return super().find_class(module, name)


def read_batch(path: Path, form: CifarFormat, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """(N, 3072) uint8 pixels and N labels of a batch file.

    Raises:
        UserError: damaged, asks for code, or its entries are not those of a CIFAR batch.
    """
    batch = _read_dict(path)
    data, labels = batch.get("data"), batch.get(form.labels_key)
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (3 * SIZE * SIZE,)):
        _fail(path, f"'data' is not an array of N x {3 * SIZE * SIZE} bytes")
    if not (isinstance(labels, list) and all(type(label) is int for label in labels)):
        _fail(path, f"{form.labels_key!r} is not a list of whole numbers")
    if not len(data) == len(labels) > 0:
        _fail(path, f"has {len(data)} images and {len(labels)} labels")
    if not (min(labels) >= 0 and max(labels) < num_classes):
        _fail(path, f"has labels from {min(labels)} to {max(labels)}, but {form.meta} names {num_classes} classes")
    return data, labels


def read_classes(path: Path, form: CifarFormat) -> list[str]:
    """Names of the classes, in the order of labels.

    Raises:
        UserError: damaged, asks for code, or no list of names.
    """
    names = _read_dict(path).get(form.names_key)
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        _fail(path, f"{form.names_key!r} is not a list of names")
    return names


def _read_dict(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            payload = _ArrayUnpickler(file).load()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        _fail(path, " ".join(str(error).split()) or type(error).__name__)
    if not isinstance(payload, dict):
        _fail(path, f"holds a {type(payload).__name__}, expected a dict")
    return payload


def _fail(path: Path, reason: str) -> NoReturn:
    raise UserError(f"{path}: is no sound CIFAR file ({reason}); put the original one there")


IMAGE_BYTES = 3 * SIZE * SIZE


class CifarStore:
    """The images of the batch files, read completely; loading processes share them."""

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
