"""The images of a subset, resized once and packed into few large files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.data.decoding import BrokenImageError
from tfnas.data.folders import atomic_folder
from tfnas.data.pack import ROWS, PackedImage, write_pack
from tfnas.data.stores import PACK, SOURCE, Store, describe, open_store, read_source, write_source
from tfnas.runtime.artifacts import write_json
from tfnas.runtime.progress import track
from tfnas.runtime.schema import MaterializeParams

if TYPE_CHECKING:
    from torch import Tensor

NONE, JPEG, RAW = "none", "jpeg", "raw"

logger = logging.getLogger("tfnas.data")


def materialize(
    root: Path,
    paths: Iterable[str],
    params: MaterializeParams,
    folder: Path,
    *,
    threads: int,
    exif: str | None = None,
) -> tuple[dict[str, int], set[str]]:
    """Write a folder of images that holds these; say how many images and bytes it has, and which were left out.

    With `format: none` it only says where they are; but images that prepare_data made are packed as they are, so that
    what reads them depends on one folder.

    Args:
        root: folder of images that the paths are relative to.
        threads: that decode, resize and encode.
        exif: apply or ignore EXIF turns; None: as the folder says.

    Raises:
        UserError: an image cannot be read, and is not to be left out.
    """
    source = read_source(root)
    if params.format == NONE and source is not None:
        write_source(folder, source)
        return {"packed_images": 0, "packed_bytes": 0}, set()
    form, shorter_side = (RAW, None) if params.format == NONE else (params.format, params.shorter_side)
    store, skips = open_store(root, exif)
    broken: set[str] | None = set() if skips else None
    names = sorted(set(paths))
    with atomic_folder(folder) as made:
        rows = _rows(store, names, form, shorter_side, params.quality, threads, broken)
        write_pack(made, track(rows, label="build_subset: images", total=len(names), unit="image"), form)
        write_json(made / SOURCE, describe(PACK, None, "error"))  # they have been decoded
        size = sum(path.stat().st_size for path in made.glob("*.arrow"))
    count = len(names) - len(broken or ())
    logger.info("%d images packed as %s, %.1f MB", count, form, size / 1e6)
    return {"packed_images": count, "packed_bytes": size}, broken or set()


def pack_image(picture: Tensor, path: str, form: str, shorter_side: int | None, quality: int) -> PackedImage:
    """A (3, H, W) uint8 picture as a row of a pack, made smaller where its shorter side is longer."""
    if shorter_side is not None and min(picture.shape[1:]) > shorter_side:
        from torchvision.transforms.v2 import functional

        picture = functional.resize(picture, [shorter_side], antialias=True)
    height, width = picture.shape[1:]
    if form == RAW:
        image = picture.permute(1, 2, 0).contiguous().numpy().tobytes()
    else:
        from torchvision.io import encode_jpeg

        image = encode_jpeg(picture.contiguous(), quality).numpy().tobytes()
    return PackedImage(path, height, width, image)


def _rows(
    store: Store,
    paths: list[str],
    form: str,
    shorter_side: int | None,
    quality: int,
    threads: int,
    broken: set[str] | None,
) -> Iterator[PackedImage]:
    """Rows in the order of paths; those of broken images go into `broken`, or are errors where that is None."""

    def row(path: str) -> PackedImage | None:
        try:
            return pack_image(store.read(path), path, form, shorter_side, quality)
        except BrokenImageError as error:
            if broken is None:
                raise
            logger.warning("left out: %s", error)
            broken.add(path)
            return None

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), ROWS):  # so that no more than so many wait to be written
            yield from filter(None, pool.map(row, paths[start : start + ROWS]))
