"""Images on disk: opening one, and a list of them as a torch data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from tfnas.data.manifest import Sample
from tfnas.runtime.errors import UserError

Transform = Callable[[Image.Image], Any]  # RGB picture to (3, H, W) float32


class ImageDataset(Dataset[tuple[Any, int]]):
    """Items are (image, label), the image as the transform gives it.

    Args:
        root: folder that the paths are relative to.
        samples: (path, label) of each image.

    Raises:
        UserError: on reading an item that is missing or broken; names the file.
    """

    def __init__(self, root: str | Path, samples: Sequence[Sample], transform: Transform) -> None:
        self.root, self.samples, self.transform = Path(root), samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        return self.transform(read_image(self.root / path)), label


class KeptDataset(Dataset[tuple[Any, int]]):
    """A data set whose transform has no randomness; its items are made once and kept, where all of them fit.

    Args:
        limit_bytes: of all images together; a larger set is made anew each time.
    """

    def __init__(self, dataset: Dataset[tuple[Any, int]], *, limit_bytes: int = 1 << 28) -> None:
        self.dataset, self._limit_bytes = dataset, limit_bytes
        self._kept: dict[int, tuple[Any, int]] = {}

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        item = self._kept.get(index)
        if item is None:
            item = self.dataset[index]
            if item[0].nbytes * len(self) <= self._limit_bytes:
                self._kept[index] = item
        return item


def read_image(path: Path) -> Image.Image:
    """The RGB picture in a file, not turned by its EXIF tag (as ImageNet is read in the field).

    Raises:
        UserError: missing or broken.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        raise UserError(f"{path}: cannot be read as an image ({_reason(error)}); replace it or remove it") from None


def header_fault(path: Path) -> str | None:
    """Why a file's header is not one of an image; None when it is."""
    try:
        with Image.open(path):
            return None
    except Exception as error:  # see read_image
        return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error).__name__ == "UnidentifiedImageError":
        return "no known image format"
    return " ".join(str(error).split()) or type(error).__name__
