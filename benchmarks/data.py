"""How fast a folder is listed and verified, what 1.28 million lines take, and images per second of our loader.

python benchmarks/imagenet_folder.py /tmp/imagenet
python benchmarks/data.py lists --root /tmp/imagenet
python benchmarks/data.py loader --root /tmp/imagenet --pack /tmp/pack

`lists`: the folder's metadata are in the operating system's cache after the first of the scans; the lists, from the
ranking to the subset, are made up.

`loader`: against torchvision's ImageFolder with Pillow and the classic transforms. The same augmentation (random crop
to 224, flip, color jitter 0.4, 0.4, 0.4, 0.2), batches of 32, two worker processes for everyone. Each round gives every
variant in turn so many batches, so that a busy machine slows all of them; the median of the rounds counts. First it
says how far the validation images of both are apart.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms as classic
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader

from tfnas.data import ImageDataset, eval_transform, make_loader, train_transform
from tfnas.data.class_accuracy import ClassAccuracy, rank, read_class_accuracy, write_class_accuracy
from tfnas.data.images.stores import FolderStore, describe, materialize, write_source
from tfnas.data.images.transforms import MEAN, STD
from tfnas.data.manifest import ManifestRecord, manifest_samples, read_manifest, write_manifest, write_samples
from tfnas.data.params import AugmentationParams, MaterializeParams
from tfnas.data.sources.image_folder import scan_image_folder
from tfnas.data.subset import build_subset
from tfnas.data.verify import verify_images

CLASSES, PER_CLASS, VAL_PER_CLASS = 1000, 1281, 50
SCANS = 5

SIZE, BATCH, WORKERS = 224, 32, 2
JITTER = (0.4, 0.4, 0.4, 0.2)
AUGMENTATION = AugmentationParams.model_validate({"crop_scale": [0.08, 1.0], "flip": True, "color_jitter": JITTER})
PACKS = {"raw pack, 256": ("raw", 256), "jpeg pack, 256": ("jpeg", 256), "jpeg pack, 320": ("jpeg", 320)}


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


def classic_loader(root: Path) -> DataLoader[Any]:
    """What most training scripts have."""
    transform = classic.Compose(
        [
            classic.RandomResizedCrop(SIZE),
            classic.RandomHorizontalFlip(),
            classic.ColorJitter(*JITTER),
            classic.ToTensor(),
            classic.Normalize(MEAN, STD),
        ]
    )
    dataset = ImageFolder(str(root / "train"), transform)
    return DataLoader(
        dataset, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, prefetch_factor=4, drop_last=True
    )


def our_loader(root: Path, samples: list[tuple[str, int]]) -> Any:
    dataset = ImageDataset(root, samples, train_transform(SIZE, AUGMENTATION))
    return make_loader(dataset, BATCH, shuffle=True, seed=0, drop_last=True, workers=WORKERS)


def endless(loader: Any) -> Iterator[Any]:
    epoch = 0
    while True:
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def time_variants(loaders: dict[str, Any], *, rounds: int, batches: int) -> None:
    """Batches that were prefetched while others had their turn are taken first and not counted."""
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, loader in loaders.items():
            iterator = iter(loader)
            for _ in range(2 * WORKERS * 2 + 2):
                next(iterator)
            begin = time.perf_counter()
            for _ in range(batches):
                next(iterator)
            rates[name].append(batches * BATCH / (time.perf_counter() - begin))
            del iterator
            stop_workers(loader)
    base = statistics.median(next(iter(rates.values())))
    for name, values in rates.items():
        ratios = [value / other for value, other in zip(values, next(iter(rates.values())), strict=True)]
        print(
            f"{name:22} {statistics.median(values):7.0f} images/s  {statistics.median(values) / base:5.2f} x"
            f"  (rounds {min(ratios):.2f} to {max(ratios):.2f})"
        )


def stop_workers(loader: Any) -> None:
    """Let nobody work ahead while the next one is timed."""
    inner = getattr(loader, "_loader", loader)
    inner._iterator = None


def compare_validation(root: Path, samples: list[tuple[str, int]], images: int = 100) -> None:
    theirs = classic.Compose([classic.Resize(256), classic.CenterCrop(SIZE), classic.ToTensor()])
    plain = ImageDataset(root, samples, eval_transform(SIZE))
    std, mean = (torch.tensor(row)[:, None, None] for row in (STD, MEAN))
    steps: list[torch.Tensor] = []
    for index in range(0, len(samples), max(1, len(samples) // images)):
        mine = plain[index][0] * std + mean
        steps.append(((mine - theirs(default_loader(str(root / samples[index][0])))) * 255).abs().round().flatten())
    off = torch.cat(steps)
    print(
        f"validation: {(off == 0).float().mean():.2%} of the values are equal, {(off == 1).float().mean():.2%}"
        f" differ by one step of 8 bits, {(off > 1).float().mean():.2%} by more (largest {int(off.max())})"
    )


def pack_all(root: Path, names: list[str], folder: Path) -> dict[str, Path]:
    """The packs, written where they are not yet."""
    source = folder / "source"
    write_source(source, describe("folder", str(root), "error"))
    packs = {}
    for title, (form, side) in PACKS.items():
        packs[title] = folder / f"{form}-{side}"
        if not packs[title].is_dir():
            params = MaterializeParams(format=form, shorter_side=side, quality=95)  # type: ignore[arg-type]
            begin = time.perf_counter()
            counts, _ = materialize(source, names, params, packs[title], threads=WORKERS)
            seconds = time.perf_counter() - begin
            each = counts["packed_bytes"] / len(names)
            print(f"{title}: {len(names)} images in {seconds:.0f} s, {each / 1e3:.0f} kB each")
    return packs


def measure_lists(options: argparse.Namespace) -> None:
    if options.root is not None:
        time_scans(options.root)
    with tempfile.TemporaryDirectory() as folder:
        time_lists(Path(folder))


def measure_loader(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    samples, _ = manifest_samples(scan_image_folder(options.root).records, "train")
    some = samples[: options.images]
    packs = pack_all(options.root, [path for path, _ in some], options.pack)
    compare_validation(options.root, samples)
    loaders = {
        "ImageFolder, Pillow": classic_loader(options.root),
        "ours, JPEG files": our_loader(options.root, samples),
    }
    loaders |= {f"ours, {title}": our_loader(folder, some) for title, folder in packs.items()}
    time_variants(loaders, rounds=options.rounds, batches=options.batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    lists, loader = commands.add_parser("lists"), commands.add_parser("loader")
    lists.add_argument("--root", type=Path, help="a folder of images; without it only the lists are timed")
    lists.set_defaults(measure=measure_lists)
    loader.add_argument("--root", type=Path, required=True, help="a folder in ImageNet's layout")
    loader.add_argument("--pack", type=Path, required=True, help="folder to pack the images in, once")
    loader.add_argument("--images", type=int, default=4000, metavar="N", help="of the folder that are packed")
    loader.add_argument("--rounds", type=int, default=5)
    loader.add_argument("--batches", type=int, default=30, help="of a variant in a round")
    loader.set_defaults(measure=measure_loader)
    options = parser.parse_args()
    options.measure(options)


if __name__ == "__main__":
    main()
