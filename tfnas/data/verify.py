"""Checks that need the contents of images: broken ones, duplicates, and kinds that are converted."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tfnas.data.images.decoding import APPLY, ORIENTATION, BrokenImageError, is_deep
from tfnas.data.images.stores import Store
from tfnas.data.manifest import BrokenImage, Listing, ManifestRecord
from tfnas.jobs.progress import announce, track

CHUNK = 4096  # images handed to the threads at a time, so that a million of them do not queue up
THREADS = 8  # that wait for a network's disk
HEAD_BYTES = 1 << 14  # two pictures that agree in these are read to the end
MOST_COMPARED = 50_000  # files of which another one has the size; seconds on a disk, a minute on a slow network's
MOST_OPENED = 10_000  # headers
PLAIN_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")  # may only be turned

logger = logging.getLogger("tfnas.data")


class Duplicates(NamedTuple):
    """Pictures with the same bytes as an earlier one."""

    splits: list[tuple[str, str]]  # paths: of val and of train
    classes: list[tuple[str, str]]  # paths: of two classes
    compared: int  # files
    candidates: int  # files of which another one has the size


def verify_images(listing: Listing, store: Store, *, threads: int) -> Listing:
    """The listing with the images that cannot be decoded moved to its broken ones, both in order.

    Args:
        threads: decoders let others run while they work.
    """
    records, broken = [], list(listing.broken)

    def fault(record: ManifestRecord) -> str | None:
        try:
            store.read(record.path)
        except BrokenImageError as error:
            return error.reason
        return None

    with ThreadPoolExecutor(threads) as pool:
        chunks = (listing.records[start : start + CHUNK] for start in range(0, len(listing.records), CHUNK))
        pairs = (
            (record, found) for chunk in chunks for record, found in zip(chunk, pool.map(fault, chunk), strict=True)
        )
        for record, found in track(pairs, label="prepare_data: verify", total=len(listing.records), unit="image"):
            if found is None:
                records.append(record)
            else:
                broken.append(BrokenImage(record.path, found))
    return Listing(records, sorted(broken), listing.left_out)


def announce_duplicates(root: Path, records: Sequence[ManifestRecord]) -> None:
    """Say once how many pictures of val are in train as well, and how many are in two classes."""
    twins = find_duplicates(root, records)
    kinds = ((twins.splits, "images of val that are in train as well"), (twins.classes, "images in two classes"))
    parts = [f"{words}: {len(pairs)} (as {pairs[0][0]}, which is {pairs[0][1]})" for pairs, words in kinds if pairs]
    if parts:
        announce(logger, f"{root}: {'; '.join(parts)}; remove one of each")
    if twins.compared < twins.candidates:
        announce(
            logger,
            f"{root}: looked for the same images in {twins.compared:,} of {twins.candidates:,} files of equal size, the"
            " largest ones",
        )


def find_duplicates(root: Path, records: Sequence[ManifestRecord], most: int = MOST_COMPARED) -> Duplicates:
    """Images whose files hold the same bytes, in train and val or in two classes.

    Only files of equal size are opened, the largest ones first, as small ones are often of equal size by chance; not
    more than `most` files, so that a data set like ImageNet costs seconds.
    """
    sizes: dict[int, list[ManifestRecord]] = defaultdict(list)
    for record in records:
        sizes[record.bytes].append(record)
    alike = [group for _, group in sorted(sizes.items(), reverse=True) if len(group) > 1]
    chosen: list[list[ManifestRecord]] = []
    compared = 0
    for group in alike:
        if compared + len(group) <= most:
            chosen.append(group)
            compared += len(group)
    splits, classes = [], []
    for group in _same_content(root, _same_content(root, chosen, HEAD_BYTES), -1):
        train = next((record for record in group if record.split == "train"), None)
        splits += [(record.path, train.path) for record in group if train is not None and record.split == "val"]
        first = group[0]
        classes += [(record.path, first.path) for record in group if record.class_name != first.class_name]
    return Duplicates(splits, classes, compared, sum(map(len, alike)))


def _same_content(root: Path, groups: Iterable[list[ManifestRecord]], length: int) -> Iterable[list[ManifestRecord]]:
    """The groups parted by their files' first bytes, all of them with length -1; without files that are alone."""

    def digest(record: ManifestRecord) -> bytes:
        try:
            with (root / record.path).open("rb") as file:
                return hashlib.blake2b(file.read(length), digest_size=16).digest()
        except OSError:  # reported when the image is needed
            return record.path.encode()

    groups = list(groups)
    members = [record for group in groups for record in group]
    with ThreadPoolExecutor(THREADS) as pool:
        digests = iter(pool.map(digest, members, chunksize=64))
        for group in groups:
            parts: dict[bytes, list[ManifestRecord]] = defaultdict(list)
            for record in group:
                parts[next(digests)].append(record)
            yield from (part for part in parts.values() if len(part) > 1)


class Kinds(NamedTuple):
    """Paths of images that are not used as they lie in the file."""

    animated: list[str]  # several frames or pages
    turned: list[str]  # by EXIF
    transparent: list[str]
    deep: list[str]  # more than 8 bits
    looked_at: int = 0  # files
    candidates: int = 0

    def said(self, exif: str) -> list[tuple[str, list[str]]]:
        """What is done with each kind that there is."""
        turned = "turned by their EXIF orientation" if exif == APPLY else "not turned by their EXIF orientation"
        words = (
            ("animated images, whose first frame is used", self.animated),
            (f"images {turned}", self.turned),
            ("images with transparency, composited on white", self.transparent),
            ("images of more than 8 bits, scaled by their real range to 8", self.deep),
        )
        return [(said, paths) for said, paths in words if paths]


def announce_kinds(root: Path, records: Sequence[ManifestRecord], exif: str) -> None:
    """Say once, for each kind, how many images are not used as they lie in the file, and what is done with them."""
    kinds = find_kinds(root, records)
    looked = "" if kinds.looked_at == kinds.candidates else f" (of {kinds.looked_at} looked at)"
    for words, paths in kinds.said(exif):
        announce(logger, f"{root}: {words}: {len(paths)}{looked}, as {paths[0]}")


def find_kinds(root: Path, records: Iterable[ManifestRecord]) -> Kinds:
    """Look at the headers of images: of the formats that may hold frames, alpha or deep values first, then of JPEG.

    Not of more than MOST_OPENED files, so that a data set like ImageNet costs seconds.
    """
    paths = [record.path for record in records]
    first = [path for path in paths if not path.lower().endswith(PLAIN_SUFFIXES)]
    candidates = first + [path for path in paths if path.lower().endswith(PLAIN_SUFFIXES)]
    chosen = candidates[:MOST_OPENED]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(zip(chosen, pool.map(lambda path: _kinds_of(root / path), chosen, chunksize=64), strict=True))
    lists = ([path for path, kinds in found if name in kinds] for name in Kinds._fields[:4])
    return Kinds(*lists, len(chosen), len(candidates))


def _kinds_of(path: Path) -> set[str]:
    """The names of an image's kinds, by its header."""
    try:
        with path.open("rb") as file, Image.open(file) as image:
            file.seek(0)
            head = file.read(32)
            kinds = {
                "animated": bool(getattr(image, "is_animated", False)),
                "turned": image.getexif().get(ORIENTATION, 1) in range(2, 9),
                "transparent": image.has_transparency_data,
                "deep": is_deep(image, head),
            }
    except Exception:  # the one who needs the image says so
        return set()
    return {name for name, holds in kinds.items() if holds}
