"""Pictures from disk, and broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfnas.data import ImageDataset, KeptDataset
from tfnas.data.image_dataset import read_image
from tfnas.runtime.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_items_are_transformed_pictures_and_labels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    dataset = ImageDataset(tmp_path, [("a.png", 7)], np.asarray)
    image, label = dataset[0]
    assert len(dataset) == 1 and label == 7
    np.testing.assert_array_equal(image, PIXELS)


@pytest.mark.parametrize(("images", "read"), [(2, 2), (3, 9)])
def test_items_are_kept_where_all_fit(tmp_path: Path, images: int, read: int) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    opened = []
    samples = [("a.png", label) for label in range(images)]
    dataset = ImageDataset(tmp_path, samples, lambda image: opened.append(1) or np.asarray(image))
    kept = KeptDataset(dataset, limit_bytes=2 * PIXELS.nbytes)
    for _ in range(3):
        for label in range(len(kept)):
            image, found = kept[label]
            assert found == label
            np.testing.assert_array_equal(image, PIXELS)
    assert len(opened) == read


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS).convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB" and image.size == (50, 40)


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
            ImageDataset(tmp_path, [(name, 0)], np.asarray)[0]
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"none\.jpg: cannot be read as an image \(No such file"):
        read_image(tmp_path / "none.jpg")
