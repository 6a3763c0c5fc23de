"""Made-up pictures, and parameters for a folder of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.params import changed, shipped_params
from tfnas.stages.params import Params

WNIDS = ("n01440764", "n01443537", "n01484850")  # three of ImageNet's classes
COUNTS = {"train": 4, "val": 2}


def write_picture(path: Path, random: np.random.Generator, *, size: tuple[int, int] = (30, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def write_image_folder(root: Path) -> Path:
    """train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, three classes of 4 + 2 pictures."""
    random = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for wnid in WNIDS:
            for number in range(count):
                write_picture(root / split / wnid / f"{wnid}_{number}.JPEG", random)
    return root


def own_image_params(root: Path) -> Params:
    """Three own classes instead of the digits, and no transfer."""
    return changed(
        shipped_params(),
        resolution=16,
        prepare_data={"source": "imagefolder", "root": str(root), "verify": True},
        rank_classes={"fit": {"epochs": 1, "batch_size": 4, "learning_rate": 0.001}},
        build_subset={"groups": 2},
        transfer={"datasets": []},
    )


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
