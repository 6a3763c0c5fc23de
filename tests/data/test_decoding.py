"""Pixels against Pillow's, and kinds of files that are not what their names say."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.helpers.images import encoded, huge
from tfnas.data.images import decoding
from tfnas.data.images.decoding import (
    BACKGROUND,
    MAX_PIXELS,
    BrokenImageError,
    decode,
    image_suffixes,
    read_image,
    recognize,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (41, 57, 3), dtype=np.uint8)


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


def wide_png(values: np.ndarray, depth: int = 16) -> np.ndarray:
    """A PNG of (H, W, C) values of 16 bits, as Pillow does not write it: C = 1 grey, 2 with alpha, 3 RGB, 4 RGBA."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return np.frombuffer(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), dtype=np.uint8).copy()


def wide_tiff(values: np.ndarray, bits: int = 16) -> np.ndarray:
    """An uncompressed TIFF of (H, W) or (H, W, 3) values, as Pillow does not write it."""
    height, width, *colors = values.shape
    samples, data = (colors or [1])[0], values.astype("<u2").tobytes()
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(np.uint16)
        first, second = pairs[:, 0], pairs[:, 1]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
        data = packed.astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 259: 1, 262: 2 if samples == 3 else 1, 277: samples, 278: height, 279: len(data)}
    tags |= {258: bits, 273: 8}
    after = 8 + len(data)
    entries = [struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags)]
    if samples == 3:
        place = after + 2 + 12 * len(tags) + 4
        entries[sorted(tags).index(258)] = struct.pack("<HHII", 258, 3, 3, place)
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4) + struct.pack("<HHH", bits, bits, bits)
    return np.frombuffer(struct.pack("<2sHI", b"II", 42, after) + data + directory, dtype=np.uint8).copy()


RAMP = np.linspace(0, 1, 40 * 6).reshape(40, 6)
WIDE_KINDS = {
    "PNG": lambda grey: encoded(Image.fromarray(grey.astype(np.uint16)), "PNG"),
    "RGB PNG": lambda grey: wide_png(grey[:, :, None].repeat(3, 2)),
    "opaque RGBA PNG": lambda grey: wide_png(np.stack([*[grey] * 3, np.full_like(grey, 65535)], axis=2)),
    "opaque LA PNG": lambda grey: wide_png(np.stack([grey, np.full_like(grey, 65535)], axis=2)),
    "TIFF": lambda grey: encoded(Image.fromarray(grey.astype(np.uint16)), "TIFF"),
    "32-bit TIFF": lambda grey: encoded(Image.fromarray(grey.astype(np.int32)), "TIFF"),
    "JPEG 2000": lambda grey: encoded(Image.fromarray(grey.astype(np.uint16)), "JPEG2000"),
    "PGM": lambda grey: encoded(Image.fromarray(grey.astype(np.int32)), "PPM"),
    "big-endian TIFF": lambda grey: encoded(Image.fromarray(grey.astype(">u2")), "TIFF"),
    "deflated TIFF": lambda grey: encoded(Image.fromarray(grey.astype(np.uint16)), "TIFF", compression="tiff_deflate"),
}


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", WIDE_KINDS)
def test_values_of_any_depth_use_the_whole_range(kind: str, bits: int) -> None:
    """The upper 8 bits of the depth, so that equal pictures of two depths agree."""
    grey = (RAMP * ((1 << bits) - 1)).astype(np.int64)
    picture = decode(WIDE_KINDS[kind](grey))
    assert torch.equal(picture, torch.from_numpy((grey >> (bits - 8)).astype(np.uint8)).expand(3, -1, -1))
    assert (picture.min(), picture.max()) == (0, 255)


def test_a_depth_that_the_file_names_counts() -> None:
    """Values that fill only a part of it stay dark."""
    grey = (RAMP * 500).astype(np.int64)
    assert decode(wide_tiff(grey, bits=12)).max() == 500 >> 4
    rows = b"".join(row.astype(">u2").tobytes() for row in grey)
    pgm = np.frombuffer(b"P5 6 40 4095\n" + rows, dtype=np.uint8).copy()
    assert decode(pgm).max() == pytest.approx(255 * 500 / 4095, abs=1)


def test_a_tiff_whose_zero_is_white() -> None:
    grey, data = (RAMP * 4095).astype(np.int64), wide_tiff((RAMP * 4095).astype(np.int64))
    black_is_zero, white_is_zero = (struct.pack("<HHII", 262, 4, 1, value) for value in (1, 0))
    inverted = np.frombuffer(data.tobytes().replace(black_is_zero, white_is_zero), dtype=np.uint8).copy()
    assert torch.equal(decode(inverted), 255 - decode(data)) and decode(data).max() == grey.max() >> 4


def test_16_bit_color_of_tiff_is_read_by_its_upper_bytes_or_refused() -> None:
    color = (np.stack([RAMP, 1 - RAMP, RAMP * 0.5], axis=2) * 65535).astype(np.int64)
    assert torch.equal(decode(wide_tiff(color)), torch.from_numpy((color >> 8).astype(np.uint8)).permute(2, 0, 1))
    with pytest.raises(ValueError, match=r"16-bit colors whose upper bytes reach 15 of 255: .* convert it to 8 bits"):
        decode(wide_tiff(color >> 4))


def test_floats_from_0_to_1_are_scaled() -> None:
    values = RAMP.astype(np.float32)
    for options in ({}, {"compression": "tiff_lzw"}):
        picture = decode(encoded(Image.fromarray(values), "TIFF", **options))
        assert torch.equal(picture[0], torch.from_numpy((values * 255).round().astype(np.uint8)))
        assert torch.equal(picture[0], picture[2])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (RAMP.astype(np.float32) * 255, r"floats from 0 to 255, where 0 to 1 are known"),
        (RAMP.astype(np.float32) - 0.5, r"floats from -0.5 to 0.5, where"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), r"infinite or not numbers"),
        (np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32), r"infinite or not numbers"),
        ((RAMP * 70000).astype(np.int32), r"values from 0 to 70000, where 0 to 65535 are known"),
        ((RAMP * 100 - 50).astype(np.int32), r"values from -50 to 50, where"),
    ],
)
def test_values_without_a_rule_are_refused_in_one_line(values: np.ndarray, words: str, tmp_path: Path) -> None:
    encoded(Image.fromarray(values), "TIFF").tofile(tmp_path / "odd.tif")
    with pytest.raises(BrokenImageError, match=rf"odd.tif: .*{words}.*convert it to 8 bits") as caught:
        read_image(tmp_path / "odd.tif")
    assert "\n" not in str(caught.value)


def with_color_key(rgba: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """A 16-bit PNG of the same picture, red or black, whose transparent pixels have a color of their own."""
    values = rgba[:, :, : len(key)].astype(np.int64) * (257 if len(key) == 3 else 0)
    values[rgba[:, :, 3] == 0] = key
    data, body = wide_png(values).tobytes(), b"tRNS" + struct.pack(f">{len(key)}H", *key)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    place = data.index(b"IDAT") - 4
    return np.frombuffer(data[:place] + chunk + data[place:], dtype=np.uint8).copy()


def transparent_files() -> dict[str, np.ndarray]:
    """Red, of which the left column is wholly transparent."""
    rgba = np.zeros((4, 2, 4), dtype=np.uint8)
    rgba[:, :] = (255, 0, 0, 255)
    rgba[:, 0, 3] = 0
    image = Image.fromarray(rgba)
    palette = Image.new("P", (2, 4), 1)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.paste(0, (0, 0, 1, 4))
    color = Image.fromarray(rgba[:, :, :3])
    color.paste((0, 255, 0), (0, 0, 1, 4))
    return {
        "RGBA PNG": encoded(image, "PNG"),
        "16-bit RGBA PNG": wide_png(rgba.astype(np.int64) * 257),
        "16-bit RGB PNG with a color key": with_color_key(rgba, (0, 60000, 0)),
        "16-bit grey PNG with a color key": with_color_key(rgba, (7,)),
        "palette PNG": encoded(palette, "PNG", transparency=0),
        "palette PNG of alphas": encoded(palette, "PNG", transparency=b"\0\xff"),
        "RGB PNG with a color key": encoded(color, "PNG", transparency=(0, 255, 0)),
        "palette GIF": encoded(palette, "GIF", transparency=0),
        "RGBA WEBP": encoded(image, "WEBP", lossless=True),
        "RGBA TIFF": encoded(image, "TIFF"),
        "RGBA TGA": encoded(image, "TGA"),
        "RGBA AVIF": encoded(image.resize((32, 64), Image.Resampling.NEAREST), "AVIF", quality=100),
    }


@pytest.mark.parametrize("kind", list(transparent_files()))
def test_transparent_pixels_are_white_whatever_color_hides_there(kind: str) -> None:
    picture = decode(transparent_files()[kind]).int()
    tolerance = 8 if "AVIF" in kind else 0
    for column, expected in ((0, BACKGROUND), (-1, (0, 0, 0) if "grey" in kind else (255, 0, 0))):
        assert (picture[:, :, column] - torch.tensor(expected)[:, None]).abs().max() <= tolerance


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    rgba = np.full((3, 3, 4), (200, 100, 0, 51), dtype=np.uint8)  # a fifth
    expected = torch.tensor([244, 224, 204])[:, None, None]
    for data in (encoded(Image.fromarray(rgba), "PNG"), wide_png(rgba.astype(np.int64) * 257)):
        assert (decode(data).int() - expected).abs().max() <= 1
    grey = np.full((3, 3, 2), (100, 51), dtype=np.uint8)
    assert (decode(encoded(Image.fromarray(grey, "LA"), "PNG")).int() - 224).abs().max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("TIFF", "RGB")]
)
def test_exif_turns_are_applied_or_ignored(form: str, mode: str, orientation: int) -> None:
    """As Pillow's `exif_transpose`; a turned and a plain picture lie in memory alike."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(PIXELS).convert(mode)
    options = {"lossless": True} if form == "WEBP" else {}
    data, plain = encoded(image, form, exif=exif.tobytes(), **options), encoded(image, form, **options)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data.tobytes()))).convert("RGB")
    assert torch.equal(decode(data), torch.from_numpy(np.array(turned)).permute(2, 0, 1))
    assert decode(data).stride()[::2] == (1, 3)
    assert torch.equal(decode(data, exif="ignore"), decode(plain))


def test_a_16_bit_png_is_turned_too() -> None:
    exif, grey = Image.Exif(), (RAMP * 65535).astype(np.uint16)
    exif[0x0112] = 8
    data = encoded(Image.fromarray(grey), "PNG", exif=exif.tobytes())
    assert torch.equal(decode(data), decode(data, exif="ignore").transpose(1, 2).flip(1))


def test_a_damaged_exif_turns_nothing() -> None:
    for tag in (b"Exif\0\0rubbish", b"Exif\0\0II*\0", b"Exif\0\0"):
        assert decode(encoded(Image.fromarray(PIXELS), "JPEG", exif=tag)).shape == (3, 41, 57)


def test_a_truncated_16_bit_png_is_an_error() -> None:
    data = wide_png(np.random.default_rng(0).integers(0, 65536, (40, 40, 3)))
    for cut in (30, 200, len(data) // 2):
        with pytest.raises(Exception, match=r"."):
            decode(data[:cut])


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        assert (decode(data).float().mean((1, 2)) - torch.tensor([255.0, 0, 0])).abs().max() < 3, form


def test_formats_are_recognized_by_their_first_bytes() -> None:
    image = Image.fromarray(PIXELS)
    for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "QOI"):
        assert recognize(encoded(image, form)[:16].tobytes()) == form
    for text in (b"", b"P", b"BMW and others...", b"Patient", b"RIFF1234WAVE", b"\0\0\0\x20ftypmp42", b"%PDF-1.7"):
        assert recognize(text) is None


def test_heic_is_read_where_its_package_is_there(monkeypatch) -> None:
    assert ".heic" not in image_suffixes()
    registered = []
    stub = SimpleNamespace(__spec__=ModuleSpec("pillow_heif", None), register_heif_opener=lambda: registered.append(1))
    monkeypatch.setitem(sys.modules, "pillow_heif", stub)
    for cached in (image_suffixes, decoding._heif_reader):
        cached.cache_clear()
    assert ".heic" in image_suffixes() and registered
    monkeypatch.undo()
    for cached in (image_suffixes, decoding._heif_reader):
        cached.cache_clear()


def test_a_header_of_too_many_pixels_is_refused_before_any_memory_is_asked_for() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None and MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match=rf"65000 x 65000 pixels are more than the {MAX_PIXELS}"):
        decode(huge(encoded(Image.fromarray(PIXELS), "JPEG")))


@pytest.mark.parametrize("cut", [3, 20, 300, 700])
def test_a_truncated_jpeg_is_an_error(cut: int) -> None:
    with pytest.raises(Exception, match=r"."):
        decode(encoded(Image.fromarray(PIXELS), "JPEG")[:cut])
