"""Pixels against Pillow's, and kinds of files that are not what their names say."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tfnas.data.decoding import MAX_PIXELS, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (41, 57, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy()


def by_pillow(data: np.ndarray) -> torch.Tensor:
    image = Image.open(io.BytesIO(data.tobytes())).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"quality": 60}, {"quality": 95, "subsampling": 0}, {"progressive": True}])
def test_jpeg_is_pillows_bit_for_bit(mode: str, options: dict) -> None:
    data = encoded(Image.fromarray(PIXELS).convert(mode), "JPEG", **options)
    assert torch.equal(decode(data), by_pillow(data))


def test_rows_of_pixels_lie_in_memory_as_resizing_likes_them() -> None:
    for form in ("JPEG", "PNG"):
        assert decode(encoded(Image.fromarray(PIXELS), form)).stride() == (1, 57 * 3, 3)


def test_16_bit_grey_keeps_its_upper_byte() -> None:
    grey = np.arange(65536, dtype=np.uint16)[::97].reshape(26, 26)
    picture = decode(encoded(Image.fromarray(grey), "PNG"))
    assert torch.equal(picture, torch.from_numpy((grey >> 8).astype(np.uint8)).expand(3, -1, -1))


def test_nothing_is_turned_by_its_exif_tag() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert decode(encoded(Image.fromarray(PIXELS), "JPEG", exif=exif.tobytes())).shape == (3, 41, 57)


def huge(data: np.ndarray) -> np.ndarray:
    """A JPEG file whose header says 65,000 x 65,000 pixels."""
    place = data.tobytes().index(b"\xff\xc0") + 5
    data[place : place + 4] = np.frombuffer(b"\xfd\xe8\xfd\xe8", dtype=np.uint8)
    return data


def test_a_header_of_too_many_pixels_is_refused_before_any_memory_is_asked_for() -> None:
    with pytest.raises(ValueError, match=rf"65000 x 65000 pixels are more than the {MAX_PIXELS}"):
        decode(huge(encoded(Image.fromarray(PIXELS), "JPEG")))


@pytest.mark.parametrize("cut", [3, 20, 300, 700])
def test_a_truncated_jpeg_is_an_error(cut: int) -> None:
    with pytest.raises(Exception, match=r"."):
        decode(encoded(Image.fromarray(PIXELS), "JPEG")[:cut])
