"""Stores of images: files in folders, packed files, CIFAR's batches, Fashion-MNIST; and packing the images of a subset.

A folder of images may hold `source.json`, which says that they are elsewhere or in another form. The rest of the code
opens the folder and need not care.

Images are packed into a few large Arrow IPC files. Why Arrow: its files are a stable, documented format that pandas,
DuckDB, R and others open; each image is in one piece, so one read at its place gives it, which a deterministic,
resumable, sharded order needs; and pyarrow comes with MLflow. WebDataset's tars are read in order, so shuffling is
limited to a buffer; Parquet is compressed by pages, so one image costs a page; LMDB is another dependency, and a memory
map that network file systems do not handle well. A file has the columns path, height, width and image; image is a JPEG
file, or the H x W x 3 bytes of RGB pixels.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from tfnas.data.images.decoding import APPLY, IGNORE, BrokenImageError, decode, read_image, reason
from tfnas.data.manifest import atomic_folder
from tfnas.data.params import MaterializeParams
from tfnas.data.sources.cifar_files import CifarStore
from tfnas.data.sources.fashion_mnist import FASHION_MNIST, FashionMnistStore
from tfnas.jobs.artifacts import read_json, write_json
from tfnas.jobs.errors import UserError
from tfnas.jobs.progress import track

if TYPE_CHECKING:
    from torch import Tensor

FILE_BYTES = 1 << 30  # of images in one file, about
ROWS = 256  # of a record batch
FORMATS = ("jpeg", "raw")
_KEY = b"tfnas.format"
SOURCE = "source.json"
KIND, VERSION = "image_source", 1
FOLDER, PACK = "folder", "pack"
SKIP = "skip"


class PackedImage(NamedTuple):
    """A row of a file."""

    path: str
    height: int
    width: int
    image: bytes


def write_pack(folder: Path, rows: Iterable[PackedImage], form: str) -> None:
    """Write images-00000.arrow and so on into an existing folder; the same bytes for the same rows."""
    import pyarrow as pa

    fields = [("path", pa.string()), ("height", pa.int32()), ("width", pa.int32()), ("image", pa.binary())]
    schema = pa.schema(fields, metadata={_KEY: form.encode()})
    batches = _batches(iter(rows))
    batch = next(batches, [])
    number = 0
    while batch or number == 0:
        size = 0
        with pa.ipc.new_file(folder / f"images-{number:05d}.arrow", schema) as file:
            while batch and size < FILE_BYTES:
                columns = [
                    pa.array(column, field.type) for column, field in zip(zip(*batch, strict=True), schema, strict=True)
                ]
                file.write_batch(pa.record_batch(columns, schema=schema))
                size += sum(len(row.image) for row in batch)
                batch = next(batches, [])
        number += 1


def _batches(rows: Iterator[PackedImage]) -> Iterator[list[PackedImage]]:
    while batch := list(islice(rows, ROWS)):
        yield batch


class PackStore:
    """Reads what `write_pack` wrote; safe to share with loading processes.

    Raises:
        UserError: no such files, or damaged ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, tuple[int, int, int, int, int]] = {}  # file, start, length, height, width
        self._files: list[int] = []  # open; a read at a place moves nothing that processes would share
        paths = sorted(folder.glob("images-*.arrow"))
        if not paths:
            raise UserError(f"{folder}: holds no images-*.arrow; run build_subset")
        for path in paths:
            self._open(path)

    def __del__(self) -> None:
        for file in self._files:
            os.close(file)

    def __reduce__(self) -> tuple[type[PackStore], tuple[Path]]:
        return PackStore, (self.folder,)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, path: str) -> Tensor:
        row = self._rows.get(path)
        if row is None:
            raise UserError(f"{self.folder}: holds no image {path!r}; run build_subset again")
        file, start, length, height, width = row
        data = np.empty(length, dtype=np.uint8)  # read, not mapped: a page fault costs more than copying the page
        if os.preadv(self._files[file], [data.data], start) != length:
            raise UserError(f"{self.folder}: ends within image {path!r}; run build_subset again")
        if self._form == "raw":
            import torch

            return torch.from_numpy(data.reshape(height, width, 3)).permute(2, 0, 1)
        try:
            return decode(data)
        except Exception as error:
            raise UserError(
                f"{self.folder}: image {path!r} cannot be read ({reason(error)}); run build_subset again"
            ) from None

    def _open(self, path: Path) -> None:
        """Note where each image starts, so that it takes one read."""
        import pyarrow as pa

        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            reader = pa.ipc.open_file(pa.py_buffer(mapped))
            form = reader.schema.metadata[_KEY].decode()
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (pa.ArrowException, KeyError, TypeError, ValueError, OSError):
            raise UserError(f"{path}: is damaged or no file of images; run build_subset again") from None
        if form not in FORMATS:
            raise UserError(f"{path}: format {form!r} is none of {', '.join(FORMATS)}; run build_subset again")
        self._form = form
        base = np.frombuffer(mapped, dtype=np.uint8).__array_interface__["data"][0]
        for batch in batches:
            _, bounds, data = batch["image"].buffers()
            starts = np.frombuffer(bounds, dtype=np.int32)[: len(batch) + 1].astype(np.int64) + (data.address - base)
            columns = (batch["path"].to_pylist(), batch["height"].to_pylist(), batch["width"].to_pylist())
            for name, height, width, start, end in zip(
                *columns, starts[:-1].tolist(), starts[1:].tolist(), strict=True
            ):
                self._rows[name] = (len(self._files), start, end - start, height, width)
        self._files.append(os.open(path, os.O_RDONLY))


class Store(Protocol):
    """Opened images."""

    def read(self, path: str) -> Tensor:
        """The picture of a path of the manifest, (3, H, W) uint8.

        Raises:
            UserError: missing or broken; names it.
        """


class FolderStore:
    """One file per image."""

    def __init__(self, root: Path, exif: str = APPLY) -> None:
        self.root, self.exif = root, exif

    def read(self, path: str) -> Tensor:
        return read_image(f"{self.root}/{path}", exif=self.exif)


def open_store(folder: Path, exif: str | None = None) -> tuple[Store, bool]:
    """The images of a folder, and whether unreadable ones are skipped.

    Args:
        exif: apply or ignore EXIF turns of image files; None: as `source.json` says, and apply them without one.

    Raises:
        UserError: a `source.json` that is damaged, or images that are not where it says.
    """
    if not (folder / SOURCE).is_file():
        return FolderStore(folder, exif or APPLY), False
    source = read_json(folder / SOURCE, kind=KIND, version=VERSION)
    return _open(source, folder, exif), source.get("on_bad_image") == SKIP


def describe(store: str, root: str | None, on_bad_image: str, exif: str = APPLY) -> dict[str, Any]:
    """The contents of a source.json.

    Args:
        store: folder, pack, cifar10, cifar100 or fashion-mnist.
        root: where the images are; None: in the folder that holds the file.
        exif: whether image files are turned as their EXIF tag says.
    """
    source = {"store": store, "root": root, "on_bad_image": on_bad_image, "exif": exif}
    return {"kind": KIND, "format_version": VERSION, **source}


def write_source(folder: Path, description: dict[str, Any]) -> None:
    """Write a folder that only says where the images are."""
    with atomic_folder(folder) as made:
        write_json(made / SOURCE, description)


def read_source(folder: Path) -> dict[str, Any] | None:
    """What a folder's source.json says; None when it has none, and so holds the images itself."""
    return read_json(folder / SOURCE, kind=KIND, version=VERSION) if (folder / SOURCE).is_file() else None


def image_root(params_root: str | None, images: Path) -> Path:
    """What to open: the folder that a stage wrote when it knows where its images are, else `prepare_data.root`."""
    return images if params_root is None or (images / SOURCE).is_file() else Path(params_root)


def _open(source: dict[str, Any], folder: Path, exif: str | None) -> Store:
    kind = source.get("store")
    root = folder if source.get("root") is None else Path(source["root"])
    if kind == FOLDER:
        return FolderStore(root, exif or source.get("exif", IGNORE))  # as before the setting existed
    if kind == PACK:
        return PackStore(root)
    if kind in ("cifar10", "cifar100"):
        return CifarStore(root, kind)
    if kind == FASHION_MNIST:
        return FashionMnistStore(root)
    raise UserError(f"{folder / SOURCE}: store {kind!r} is unknown; run the stage that writes it")


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
    """Write a folder with these images; returns how many images and bytes it holds, and which were skipped.

    With `format: none` it only says where they are; but images that prepare_data made are packed unchanged, so that
    their readers depend on one folder only.

    Args:
        root: folder of images that the paths are relative to.
        threads: that decode, resize and encode.
        exif: apply or ignore EXIF turns; None: as the folder says.

    Raises:
        UserError: an image cannot be read, and must not be skipped.
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
    """A (3, H, W) uint8 picture as a row of a pack, scaled down where its shorter side is too long."""
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
    """Rows in the order of paths; broken images are collected in `broken`, or are errors where that is None."""

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
        for start in range(0, len(paths), ROWS):  # which limits how many wait to be written
            yield from filter(None, pool.map(row, paths[start : start + ROWS]))
