"""The transfer set of the default run: the digits in another domain, in CIFAR's format.

Black on white instead of white on black, and turned by a quarter: edges keep their shapes, but neither brightness nor
direction means what it meant. Training images stay training images, so that no image to be judged was trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfnas.data.cifar_format import FORMATS, SIZE, write_cifar, write_meta
from tfnas.data.digits import CLASSES, Digit, load_digits

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
