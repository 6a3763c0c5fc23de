"""Pictures from disk, and broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tfnas.data import ImageDataset
from tfnas.data.images.decoding import read_image
from tfnas.jobs.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def rows(picture: torch.Tensor) -> np.ndarray:
    """(H, W, 3), as NumPy and Pillow have it."""
    return picture.permute(1, 2, 0).numpy()


def test_items_are_transformed_pictures_and_labels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    dataset = ImageDataset(tmp_path, [("a.png", 7)], rows)
    image, label = dataset[0]
    assert len(dataset) == 1 and label == 7
    np.testing.assert_array_equal(image, PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 40, 50) and image.dtype == torch.uint8


def test_broken_pictures_are_named_in_one_line(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "whole.jpg")
    Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    jpeg, png = (tmp_path / "whole.jpg").read_bytes(), (tmp_path / "whole.png").read_bytes()
    broken = {
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "flipped.png": png[:60] + b"\0" * 40 + png[100:],
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: cannot be read as an image \(.+\); replace it") as caught:
            ImageDataset(tmp_path, [(name, 0)], rows)[0]
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"none\.jpg: cannot be read as an image \(No such file"):
        read_image(tmp_path / "none.jpg")
