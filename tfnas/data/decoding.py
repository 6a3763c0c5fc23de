"""From an image file's bytes to RGB pixels: libjpeg-turbo by torchvision for JPEG, Pillow for everything else.

Both give Pillow's pixels bit for bit for JPEG of RGB and grey (a test compares them); torchvision's way leaves out
Pillow's copies. Nothing is turned by its EXIF tag, as ImageNet is read in the field.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tfnas.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # where Pillow, too, takes an image for an attack on the memory
_JPEG = b"\xff\xd8\xff"
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_GREY_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class BrokenImageError(UserError):
    """An image that cannot be read."""

    def __init__(self, path: str | Path, why: Exception) -> None:
        self.reason = reason(why)
        super().__init__(f"{path}: cannot be read as an image ({self.reason}); replace it or remove it")


def read_image(path: str | Path) -> Tensor:
    """The picture in a file, (3, H, W) uint8.

    Raises:
        BrokenImageError: missing or broken.
    """
    try:
        return decode(np.fromfile(path, dtype=np.uint8))
    except Exception as error:  # decoders raise many kinds for a broken file
        raise BrokenImageError(path, error) from None


def decode(data: np.ndarray) -> Tensor:
    """(3, H, W) uint8 of an image file's bytes, whatever its name says; in memory by rows of RGB pixels.

    CMYK and palettes become RGB, transparency is dropped, 16-bit grey keeps its upper byte.

    Raises:
        Exception: of many kinds, for what is no image or a broken one.
    """
    if data[:3].tobytes() == _JPEG and _jpeg_channels(data) in (1, 3):
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        try:
            return decode_jpeg(torch.from_numpy(data), mode=ImageReadMode.RGB)
        except RuntimeError:  # Pillow says why, in better words
            pass
    with Image.open(io.BytesIO(data.tobytes())) as image:
        if image.mode in _GREY_16:
            return to_tensor(Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)))
        return to_tensor(image)


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 of a picture, in memory by rows of RGB pixels."""
    import torch

    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def reason(error: Exception) -> str:
    """Why an image cannot be read, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error).__name__ == "UnidentifiedImageError":
        return "no known image format"
    return " ".join(str(error).split()) or type(error).__name__


def _jpeg_channels(data: np.ndarray) -> int:
    """Channels as the header says, 0 where it has none.

    Raises:
        ValueError: more pixels than MAX_PIXELS; libjpeg would try to allocate them.
    """
    head, place = data[: 1 << 16].tobytes(), 2
    while place + 10 <= len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if marker in _SIZE_MARKERS:
            height, width = (int.from_bytes(head[at : at + 2], "big") for at in (place + 5, place + 7))
            if height * width > MAX_PIXELS:
                raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS} that are admitted")
            return head[place + 9]
        place += 2 + length
    return 0
