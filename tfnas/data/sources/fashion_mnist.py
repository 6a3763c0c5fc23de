"""Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist): 28 x 28 gray pictures of clothing, ten classes.

Four IDX files, gzipped or not, as torchvision lays them out (ROOT/FashionMNIST/raw) or directly in a folder, as
Debian's package dataset-fashion-mnist installs them. An IDX file begins with two zero bytes, 8 for unsigned bytes and
the number of dimensions D; D sizes of four bytes follow, the highest byte first, and then the values.

Pictures get a border of two black pixels, which makes them as large as CIFAR's. Their background is black as well, so
the border changes nothing, while resizing to 32 x 32 would blur every edge. Another `resolution` is reached by resizing
the 32 x 32 pixels, as for any image. In a manifest, paths are `<file>/<number>`, relative to the root.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from tfnas.data.manifest import ManifestRecord
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# N images, H W size, D dimensions of an IDX file

FASHION_MNIST = "fashion-mnist"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SPLITS = {"train": "train", "val": "t10k"}  # our name of each, and the files'
PLACES = ("FashionMNIST/raw", ".")  # of the files, below the root
FILE_SIZE, BORDER = 28, 2  # height and width of a picture in the files; pixels on each side
SIZE = FILE_SIZE + 2 * BORDER
IMAGE_BYTES = FILE_SIZE**2
UNSIGNED_BYTES = 8  # the type in an IDX header
FIX = (
    "run `apt-get install dataset-fashion-mnist` and write prepare_data.root: null, or"
    " `torchvision.datasets.FashionMNIST(ROOT, download=True)` and write ROOT as prepare_data.root"
)


def check_fashion_mnist(root: str | Path) -> None:
    """Look for the four files without reading them.

    Raises:
        UserError: one is missing; says how to get it.
    """
    for split in SPLITS:
        _find(Path(root), _images_name(split))
        _find(Path(root), _labels_name(split))


def list_fashion_mnist(root: str | Path) -> list[ManifestRecord]:
    """Records of all pictures, the test files' as `val`, sorted.

    Raises:
        UserError: a file is missing or damaged.
    """
    root = Path(root)
    records = []
    for split in SPLITS:
        file, _, labels = _read_split(root, split)
        name = file.relative_to(root).as_posix()
        records += [
            ManifestRecord(split, CLASSES[label], f"{name}/{number:05d}", IMAGE_BYTES)
            for number, label in enumerate(labels.tolist())
        ]
    return sorted(records)


class FashionMnistStore:
    """The pictures of both splits, read completely (72 MB); loading processes share them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._images: dict[str, np.ndarray] = {}  # by file: (N, H, W) uint8 with the border
        for split in SPLITS:
            file, images, _ = _read_split(root, split)
            sides = (BORDER, BORDER)
            self._images[file.relative_to(root).as_posix()] = np.pad(images, ((0, 0), sides, sides))

    def read(self, path: str) -> Tensor:
        """The picture of a path of the manifest, (3, 32, 32) uint8, its three channels equal."""
        name, _, number = path.rpartition("/")
        images = self._images.get(name)
        if images is None or not number.isdigit() or int(number) >= len(images):
            raise UserError(f"{self.root / path}: there is no such Fashion-MNIST image; run prepare_data again")
        import torch

        return torch.from_numpy(images[int(number)]).expand(3, SIZE, SIZE)


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes of an IDX file, gzipped if its name ends in .gz, in the shape that its header says.

    Raises:
        UserError: unreadable, not gzip, not IDX, another type than unsigned bytes, or shorter or longer than its header
            says.
    """
    content = _read_bytes(path)
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0":
        _fail(path, f"begins with {magic.hex() or 'nothing'}, an IDX file with 0000")
    kind, dimensions = magic[2:]
    if kind != UNSIGNED_BYTES:
        _fail(path, f"holds values of type {kind:#04x}, expected unsigned bytes, {UNSIGNED_BYTES:#04x}")
    start = 4 + 4 * dimensions
    if len(content) < start:
        _fail(path, f"ends within its header, after {len(content)} of {start} bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        size = " x ".join(map(str, shape))
        _fail(path, f"has {len(content)} bytes where its header, {size}, asks for {expected}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        _fail(path, f"cannot be unzipped: {error}")
    except OSError as error:
        _fail(path, f"cannot be read: {error.strerror}")


def _read_split(root: Path, split: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """The file of a split's pictures, the (N, 28, 28) pixels in it, and N labels."""
    file, labels_file = _find(root, _images_name(split)), _find(root, _labels_name(split))
    images, labels = read_idx(file), read_idx(labels_file)
    if images.shape[1:] != (FILE_SIZE, FILE_SIZE):
        _fail(file, f"has the shape {images.shape}, expected N x {FILE_SIZE} x {FILE_SIZE}")
    if labels.ndim != 1:
        _fail(labels_file, f"has the shape {labels.shape}, expected N labels")
    if not len(images) == len(labels) > 0:
        _fail(labels_file, f"has {len(labels)} labels for the {len(images)} images of {file.name}")
    if labels.max() >= len(CLASSES):
        _fail(labels_file, f"has the label {labels.max()}, expected 0 to {len(CLASSES) - 1}")
    return file, images, labels


def _images_name(split: str) -> str:
    return f"{SPLITS[split]}-images-idx3-ubyte"


def _labels_name(split: str) -> str:
    return f"{SPLITS[split]}-labels-idx1-ubyte"


def _find(root: Path, name: str) -> Path:
    """A file in one of the places, unzipped or not; where both are there, unzipped, as torchvision reads it."""
    found = (root / place / file for place in PLACES for file in (name, f"{name}.gz"))
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise UserError(f"{root}: has no {name} or {name}.gz, directly or in {PLACES[0]}; {FIX}")
    return path


def _fail(path: Path, reason: str) -> NoReturn:
    raise UserError(f"{path}: is no sound Fashion-MNIST file ({reason}); {FIX}")
