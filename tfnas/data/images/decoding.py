"""From an image file's bytes to RGB pixels: libjpeg-turbo by torchvision for JPEG, Pillow for everything else.

Both give Pillow's pixels bit for bit for JPEG of RGB and gray (a test compares them); torchvision's way leaves out
Pillow's copies, and it keeps all bits of a 16-bit PNG. One rule for each kind of image:

- CMYK, YCbCr, Lab and palettes become RGB by Pillow's formulas, without color profiles.
- Transparency, also a palette's, is composited on white (BACKGROUND).
- Whole numbers of more than 8 bits have the depth that the file names, else the smallest of 8, 10, 12, 14 and 16 bits
  that holds the image's largest value; the upper 8 bits of that depth are kept. Nothing is stretched to a minimum and
  a maximum: that would change what a dark or a flat image means.
- Floats from 0 to 1 are multiplied by 255. Other floats, negative numbers and numbers above 65535 are refused.
- Of several frames or pages, the first is used.
- EXIF's orientation is applied unless `prepare_data.exif` is `ignore`.
"""

from __future__ import annotations

import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

MAX_PIXELS = 2 * 89_478_485  # where Pillow, too, takes an image for an attack on the memory
_JPEG = b"\xff\xd8\xff"
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
APPLY, IGNORE = "apply", "ignore"  # of prepare_data.exif
BACKGROUND = (255, 255, 255)  # under transparent pixels: the paper that a drawing or a cut-out is seen on
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras, scanners and medical devices
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),  # torchvision's
    *(".jfif", ".jpe", ".apng", ".gif", ".dib", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".qoi"),
)
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
_LIBRARIES = {".avif": "avif", ".webp": "webp", ".jp2": "jpg_2000", ".j2k": "jpg_2000"}  # Pillow may lack them
ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
_WHITE_IS_ZERO = 0
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24  # where a file has the bits of a value
_SIGNATURES = (
    (_JPEG, "JPEG"),
    (_PNG, "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"qoif", "QOI"),
    (b"\0\0\0\x0cjP  ", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC"}


class BrokenImageError(UserError):
    """An image that cannot be read."""

    def __init__(self, path: str | Path, why: Exception) -> None:
        self.reason = reason(why)
        super().__init__(f"{path}: cannot be read as an image ({self.reason}); replace it or remove it")


@cache
def image_suffixes() -> tuple[str, ...]:
    """Suffixes of the images that can be decoded on this machine."""
    from PIL import features

    heif = HEIF_SUFFIXES if _heif_reader() else ()
    names = (*SUFFIXES, ".avif", *heif)
    return tuple(name for name in names if name not in _LIBRARIES or features.check(_LIBRARIES[name]))


def recognize(head: bytes) -> str | None:
    """The image format that a file's first 16 bytes announce; None for anything else."""
    for signature, form in _SIGNATURES:
        if head.startswith(signature):
            return form
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    return "PPM" if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace() else None


def read_image(path: str | Path, *, exif: str = APPLY) -> Tensor:
    """The picture in a file, (3, H, W) uint8.

    Raises:
        BrokenImageError: missing, broken, or of values that no rule covers.
    """
    try:
        return decode(np.fromfile(path, dtype=np.uint8), exif=exif)
    except Exception as error:  # decoders raise many kinds for a broken file
        raise BrokenImageError(path, error) from None


def decode(data: np.ndarray, *, exif: str = APPLY) -> Tensor:
    """(3, H, W) uint8 of an image file's bytes, whatever its name says; in memory by rows of RGB pixels.

    Raises:
        Exception: of many kinds, for what is no image, a broken one, or one that no rule of this file covers.
    """
    if data[:3].tobytes() == _JPEG and _jpeg_channels(data) in (1, 3):
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        try:
            picture = decode_jpeg(torch.from_numpy(data), mode=ImageReadMode.RGB)
        except RuntimeError:  # Pillow says why, in better words
            pass
        else:
            return _turn(picture, _jpeg_orientation(data) if exif == APPLY else 1)
    from PIL import Image

    _heif_reader()
    with Image.open(io.BytesIO(data.tobytes())) as image:
        written = image.getexif().get(ORIENTATION, 1) if image.format == "TIFF" else 1
        wide = _read_wide_png(data, image.info.get("transparency"))
        return _oriented(to_tensor(image if wide is None else wide), image, written, exif)


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 of a picture as it was opened, in memory by rows of RGB pixels; no EXIF tag turns it.

    Raises:
        ValueError: values that no rule of this file covers.
    """
    import torch

    return torch.from_numpy(np.array(_to_rgb(image))).permute(2, 0, 1)


def turned_tensor(image: Image.Image, *, exif: str = APPLY) -> Tensor:
    """As `to_tensor`, turned by the EXIF tag that the picture still carries."""
    return _oriented(to_tensor(image), image, 1, exif)


def _oriented(picture: Tensor, image: Image.Image, written: int, exif: str) -> Tensor:
    """The picture as its EXIF tag wants it, or as it lies in the file.

    Args:
        written: the file's orientation where Pillow applies it itself on loading, as with TIFF; else 1.
    """
    left = image.getexif().get(ORIENTATION, 1)  # what loading has not applied
    if exif == APPLY:
        return _turn(picture, left)
    return _turn(picture, {6: 8, 8: 6}.get(written, written)) if left != written else picture


def _turn(picture: Tensor, orientation: int) -> Tensor:
    """Apply an EXIF orientation, 1 to 8; anything else is none."""
    if orientation not in range(2, 9):
        return picture
    if orientation >= 5:
        picture = picture.transpose(1, 2)
    axes = {2: (2,), 3: (1, 2), 4: (1,), 5: (), 6: (2,), 7: (1, 2), 8: (1,)}[orientation]
    return picture.flip(axes).permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _jpeg_orientation(data: np.ndarray) -> int:
    if b"Exif\0\0" not in data[: 1 << 16].tobytes():
        return 1
    from PIL import Image

    with Image.open(io.BytesIO(data.tobytes())) as image:  # reads the header only
        return image.getexif().get(ORIENTATION, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in _WIDE_MODES:
        depth = _depth(image)  # before the pixels are loaded
        gray = _upper_bits(np.asarray(image), depth)
        inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return Image.fromarray(255 - gray if inverted else gray).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_from_unit_range(np.asarray(image))).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        result = Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")
    else:
        result = image.convert("RGB")
    _check_kept_bits(image)
    return result


def _upper_bits(values: np.ndarray, depth: int | None = None) -> np.ndarray:
    """Whole numbers of more than 8 bits as 8 bits; without a depth, of the smallest one that holds them."""
    return (values >> (_depth_of(values, depth or 8) - 8)).astype(np.uint8)


def _depth_of(values: np.ndarray, least: int) -> int:
    """The smallest of DEPTHS, `least` or more, that holds the values."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest >= 1 << DEPTHS[-1]:
        raise ValueError(f"values from {lowest} to {highest}, where 0 to 65535 are known; convert it to 8 bits")
    return least if highest < 1 << least else next(bits for bits in DEPTHS if highest < 1 << bits)


def _from_unit_range(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("some of its values are infinite or not numbers; convert it to 8 bits")
    lowest, highest = float(values.min()), float(values.max())
    if lowest < 0 or highest > 1:
        raise ValueError(f"floats from {lowest:g} to {highest:g}, where 0 to 1 are known; convert it to 8 bits")
    return (values * 255).round().astype(np.uint8)


def is_deep(image: Image.Image, head: bytes) -> bool:
    """Whether an image that was opened has values of more than 8 bits; `head` is its file's first 25 bytes or more."""
    return image.mode in (*_WIDE_MODES, "F") or (_tiff_bits(image) or 0) > 8 or _is_wide_png(head)


def _is_wide_png(head: bytes) -> bool:
    return head[:8] == _PNG and len(head) > _PNG_DEPTH and head[_PNG_DEPTH] == 16


def _depth(image: Image.Image) -> int | None:
    """Bits of a value, where the file says so; whole bytes say nothing, as they also hold fewer bits."""
    tiles = getattr(image, "tile", None)
    if image.format == "PPM" and tiles and tiles[0].codec_name.startswith("ppm"):
        return 16  # Pillow has scaled the file's own largest value to 65535
    bits = _tiff_bits(image)
    return bits if bits not in (16, 32) else None


def _tiff_bits(image: Image.Image) -> int | None:
    """Bits of a value of a TIFF file; None for other files."""
    tags = getattr(image, "tag_v2", None)
    return None if tags is None else max(tags.get(_BITS, (1,)))


def _check_kept_bits(image: Image.Image) -> None:
    """Of 16-bit color in TIFF, Pillow reads the upper bytes only: what lies below would be black."""
    if (_tiff_bits(image) or 0) <= 8 or image.mode not in ("RGB", "RGBA", "RGBX", "RGBa"):
        return
    highest = max(int(np.max(extremes)) for extremes in image.getextrema()[:3])
    if highest < 1 << (DEPTHS[-2] - 8):
        raise ValueError(
            f"16-bit colors whose upper bytes reach {highest} of 255: its values have fewer bits; convert it to 8 bits"
        )


def _read_wide_png(data: np.ndarray, key: int | tuple[int, ...] | None) -> Image.Image | None:
    """A 16-bit PNG with all its bits, of which Pillow keeps the upper bytes only, as 8 bits; None for other files.

    Args:
        key: the color that is transparent, if there is one.
    """
    if not _is_wide_png(data[:26].tobytes()):
        return None
    import torch
    from PIL import Image
    from torchvision.io import decode_png

    try:
        values = decode_png(torch.from_numpy(data)).permute(1, 2, 0).numpy().astype(np.int32)
    except RuntimeError:  # Pillow says why, in better words
        return None
    has_alpha = values.shape[2] in (2, 4)
    colors = values[:, :, :-1] if has_alpha else values
    depth = _depth_of(colors, 8)
    channels = [_upper_bits(colors, depth)] * (3 if colors.shape[2] == 1 else 1)
    if key is not None and not has_alpha:
        channels.append(np.where((values == key).all(axis=2, keepdims=True), 0, 255).astype(np.uint8))
    if has_alpha:
        channels.append(_upper_bits(values[:, :, -1:], depth))
    return Image.fromarray(np.concatenate(channels, axis=2))


@cache
def _heif_reader() -> bool:
    """Let Pillow read HEIC where pillow-heif is installed; say whether it is."""
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return True


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
