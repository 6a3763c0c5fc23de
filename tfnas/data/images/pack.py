"""Images packed into a few large Arrow IPC files.

Why Arrow: its files are a stable, documented format that pandas, DuckDB, R and others open; each image is in one
piece, so one read at its place gives it, which a deterministic, resumable, sharded order needs; and pyarrow comes with
MLflow. WebDataset's tars are read in order, so shuffling is limited to a buffer; Parquet is compressed by pages, so one
image costs a page; LMDB is another dependency, and a memory map that network file systems do not handle well.

A file has the columns path, height, width and image; image is a JPEG file, or the H x W x 3 bytes of RGB pixels.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfnas.data.images.decoding import decode, reason
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FILE_BYTES = 1 << 30  # of images in one file, about
ROWS = 256  # of a record batch
FORMATS = ("jpeg", "raw")
_KEY = b"tfnas.format"


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
