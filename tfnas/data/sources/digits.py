"""scikit-learn's digits as a data set in ImageNet's layout, and shifted digits, the default run's transfer set.

1,797 gray pictures of 8 x 8 pixels with 17 shades, ten classes, from the test half of UCI's "Optical Recognition of
Handwritten Digits". They come with scikit-learn, so nothing is downloaded.

The shifted digits, in CIFAR's format, are black on white instead of white on black and rotated by 90 degrees: edges
keep their shapes, but brightness and direction change their meaning. Training images stay training images, so that no
validation image was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tfnas.compute.seeding import derive_seed
from tfnas.data.manifest import ManifestRecord
from tfnas.data.sources.cifar_files import FORMATS, SIZE, write_cifar, write_meta
from tfnas.jobs.progress import track

CLASSES = tuple(str(digit) for digit in range(10))
VAL_FRACTION = 0.2
SHADES = 16  # the darkest pixel's value


@dataclass(frozen=True)
class Digit:
    """One picture: its number in scikit-learn's order, its class, its split."""

    number: int
    label: int
    split: str
    pixels: np.ndarray  # (8, 8) uint8, 0 black to 255 white

    def picture(self, resolution: int) -> Image.Image:
        """RGB, three equal channels, enlarged to (resolution, resolution)."""
        size = (resolution, resolution)
        return Image.fromarray(self.pixels).resize(size, Image.Resampling.BICUBIC).convert("RGB")


def load_digits() -> list[Digit]:
    """All pictures in scikit-learn's order, white on black; a fifth of each class is `val`.

    The split is the same for every seed: the pictures are a data set, and the seed is the experiment's.
    """
    from sklearn.datasets import load_digits as load

    bunch = load()
    labels = bunch.target.tolist()
    val = {number for label in range(len(CLASSES)) for number in _val_numbers(labels, label)}
    pixels = np.rint(bunch.images * (255 / SHADES)).astype(np.uint8)
    return [
        Digit(number, label, "val" if number in val else "train", pixels[number]) for number, label in enumerate(labels)
    ]


def _val_numbers(labels: list[int], label: int) -> list[int]:
    """A fifth of a class, rounded, in an order that depends only on their numbers."""
    numbers = [number for number, other in enumerate(labels) if other == label]
    shuffled = sorted(numbers, key=lambda number: (derive_seed(0, "digits", number), number))
    return shuffled[: round(VAL_FRACTION * len(numbers))]


def write_digits(folder: Path, resolution: int) -> list[ManifestRecord]:
    """Write split/class/number.png below a folder; the same bytes each time with the same Pillow.

    Returns:
        Their records, sorted by split, class and name.
    """
    digits = load_digits()
    records = []
    for digit in track(digits, label="prepare_data: digits", total=len(digits), unit="image"):
        name = f"{digit.split}/{CLASSES[digit.label]}/{digit.number:04d}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digit.picture(resolution).save(path)
        records.append(ManifestRecord(digit.split, CLASSES[digit.label], name, path.stat().st_size))
    return sorted(records)


DATASET = "shifted-digits"


def write_shifted_digits(root: Path) -> None:
    """Write the set into a new folder of its own below `root`, as 32 x 32 pixels whatever the resolution."""
    form, digits = FORMATS[DATASET], load_digits()
    folder = root / form.folder
    folder.mkdir()
    write_cifar(folder, form, train=_shifted(digits, "train"), test=_shifted(digits, "val"))
    write_meta(folder, form, CLASSES)


def shift(image: np.ndarray) -> np.ndarray:
    """An (H, W, 3) uint8 image inverted and turned by 90 degrees, counter-clockwise."""
    return np.ascontiguousarray(np.rot90(255 - image))


def _shifted(digits: list[Digit], split: str) -> tuple[np.ndarray, list[int]]:
    chosen = [digit for digit in digits if digit.split == split]
    images = [shift(np.asarray(digit.picture(SIZE))) for digit in chosen]
    return np.stack(images), [digit.label for digit in chosen]
