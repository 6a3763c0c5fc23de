"""Decoding every image of a manifest, to find the broken ones before a search does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tfnas.data.decoding import BrokenImageError
from tfnas.data.manifest import BrokenImage, Listing, ManifestRecord
from tfnas.data.stores import Store
from tfnas.runtime.progress import track

CHUNK = 4096  # images handed to the threads at a time, so that a million of them do not queue up


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
    return Listing(records, sorted(broken))
