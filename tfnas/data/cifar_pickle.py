"""Reading a CIFAR file's pickle without letting it run code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from tfnas.data.cifar_format import SIZE, CifarFormat
from tfnas.runtime.errors import UserError

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
