"""A generated folder in ImageNet's layout and of its shape: classes named by WordNet ids, JPEGs of 500 x 375 pixels
and about 110 kB.

python benchmarks/imagenet_folder.py /tmp/imagenet --images 20000 --classes 1000

A few hundred pictures are drawn and encoded; every file is one of them with bytes of its own in a comment, so that
20,000 files (2.2 GB) take seconds and no two are the same.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

DISTINCT = 300
SIZE = (375, 500)
BYTES = 110_000
VAL_SHARE = 0.04  # 50,000 of 1.33 million


def draw_picture(random: np.random.Generator, size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth areas, as photographs have, with the noise that makes a JPEG of the usual quality 110 kB."""
    height, width = size
    coarse = random.integers(0, 256, (height // 30 + 2, width // 30 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    noise = random.normal(0.0, random.uniform(8.0, 18.0), (height, width, 1))
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def encode(picture: Image.Image, target_bytes: int = BYTES) -> bytes:
    """A JPEG file of the quality from 75 to 97 that comes nearest to a size."""
    files = []
    for quality in range(75, 98, 2):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        files.append(buffer.getvalue())
    return min(files, key=lambda file: abs(len(file) - target_bytes))


def with_comment(file: bytes, text: bytes) -> bytes:
    """The same picture, other bytes: a comment segment behind the start of the image."""
    return file[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + file[2:]


def wnid(number: int) -> str:
    return f"n{1_000_000 + 7_919 * number:08d}"


def write_folder(root: Path, *, images: int, classes: int, seed: int = 0, distinct: int = DISTINCT) -> int:
    """Write train/<wnid>/*.JPEG and val/<wnid>/*.JPEG with the images spread evenly; returns their bytes."""
    random = np.random.default_rng(seed)
    files = [encode(draw_picture(random)) for _ in range(distinct)]
    total = 0
    for number in range(images):
        name = wnid(number % classes)
        split = "val" if number // classes < max(1, VAL_SHARE * images / classes) else "train"
        path = root / split / name / f"{name}_{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        total += path.write_bytes(with_comment(files[random.integers(distinct)], b"%d" % number))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=20_000, metavar="N")
    parser.add_argument("--classes", type=int, default=1000, metavar="N")
    options = parser.parse_args()
    total = write_folder(options.root, images=options.images, classes=options.classes)
    print(f"{options.root}: {options.images} images, {total / options.images / 1e3:.0f} kB each on the mean")


if __name__ == "__main__":
    main()
