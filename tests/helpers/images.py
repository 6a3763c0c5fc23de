"""Made-up pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n01484850")  # three of ImageNet's classes


def write_picture(path: Path, random: np.random.Generator, *, size: tuple[int, int] = (30, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def encoded(image: Image.Image, form: str, **options) -> np.ndarray:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy()


def huge(data: np.ndarray) -> np.ndarray:
    """A JPEG file whose header says 65,000 x 65,000 pixels."""
    place = data.tobytes().index(b"\xff\xc0") + 5
    data[place : place + 4] = np.frombuffer(b"\xfd\xe8\xfd\xe8", dtype=np.uint8)
    return data
