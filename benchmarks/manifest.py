"""How fast a folder is listed and verified, and what 1.28 million lines take from the ranking to the subset.

python benchmarks/imagenet_folder.py /tmp/imagenet
python benchmarks/manifest.py --root /tmp/imagenet

The folder's metadata are in the operating system's cache after the first of the scans; the lists are made up.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from tfnas.data.class_accuracy import ClassAccuracy, rank, read_class_accuracy, write_class_accuracy
from tfnas.data.images.stores import FolderStore
from tfnas.data.manifest import ManifestRecord, read_manifest, write_manifest, write_samples
from tfnas.data.sources.image_folder import scan_image_folder
from tfnas.data.subset import build_subset
from tfnas.data.verify import verify_images

CLASSES, PER_CLASS, VAL_PER_CLASS = 1000, 1281, 50
SCANS = 5


def time_scans(root: Path) -> None:
    """The first scan and the fastest of the others, and decoding of up to 2,000 images."""
    times = []
    for _ in range(SCANS):
        begin = time.perf_counter()
        listing = scan_image_folder(root)
        times.append(time.perf_counter() - begin)
    files = len(listing.records)
    print(f"manifest: {files} files, first {files / times[0]:,.0f} files/s, then {files / min(times[1:]):,.0f} files/s")
    some = listing._replace(records=listing.records[:2000])
    begin = time.perf_counter()
    verify_images(some, FolderStore(root), threads=2)
    print(f"verify: {len(some.records) / (time.perf_counter() - begin):,.0f} images/s with two threads")


def time_lists(folder: Path) -> None:
    """From class_accuracy.csv and manifest.csv to train.csv and val.csv."""
    random = np.random.default_rng(0)
    names = [f"n{number:08d}" for number in range(CLASSES)]
    records = [
        ManifestRecord(split, name, f"{split}/{name}/{name}_{number}.JPEG", 110_000)
        for split, count in (("train", PER_CLASS), ("val", VAL_PER_CLASS))
        for name in names
        for number in range(count)
    ]
    write_manifest(records, folder / "manifest.csv")
    correct = random.integers(0, PER_CLASS + 1, CLASSES).tolist()
    rows = rank(ClassAccuracy(name, PER_CLASS, right) for name, right in zip(names, correct, strict=True))
    write_class_accuracy(rows, folder / "class_accuracy.csv")
    del records
    begin = time.perf_counter()
    accuracies, records = read_class_accuracy(folder / "class_accuracy.csv"), read_manifest(folder / "manifest.csv")
    subset = build_subset(accuracies, records, groups=100, train_fraction=0.8, seed=0)
    write_samples(subset.train, folder / "train.csv")
    write_samples(subset.val, folder / "val.csv")
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"ranking to subset: {len(records):,} lines, {len(subset.train):,} + {len(subset.val):,} images,"
        f" {seconds:.1f} s, peak memory of the process {peak:.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="a folder of images; without it only the lists are timed")
    options = parser.parse_args()
    if options.root is not None:
        time_scans(options.root)
    with tempfile.TemporaryDirectory() as folder:
        time_lists(Path(folder))


if __name__ == "__main__":
    main()
