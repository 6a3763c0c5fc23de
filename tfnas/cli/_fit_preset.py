"""Numbers of the preset for own images that follow from the images: how many classes, how many of each, how large."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

from tfnas.runtime.errors import UserError

LARGEST, STEP = 224, 32  # pixels; networks halve an image five times
LOOKED_AT = 200  # images whose size is looked at
VAL_FRACTION, TRAIN_FRACTION = 0.2, 0.8  # as the preset


def fit_to_images(text: str, root: Path) -> str:
    """The preset with at most as many groups as classes, batches that are not larger than a set, and a resolution that
    is not larger than the images.

    Raises:
        UserError: the folder is none of images.
    """
    from tfnas.data.image_folder import announce_left_out, scan_image_folder
    from tfnas.runtime.devices import allowed_cpus

    records, _, left_out = scan_image_folder(root, val_fraction=VAL_FRACTION)
    announce_left_out(root, left_out)
    cpus = allowed_cpus()
    train = [record for record in records if record.split == "train"]
    counts = dict.fromkeys(sorted({record.class_name for record in train}), 0)
    if len(counts) < 2:
        raise UserError(f"init: --data-root {root}: has {len(counts)} classes; a classifier needs 2 or more")
    for record in train:
        counts[record.class_name] += 1
    groups = min(int(value_of(text, "build_subset", "groups")), len(counts))
    smallest = sum(sorted(counts.values())[:groups])  # images of a subset, at least
    changes = [
        ("build_subset", "groups", groups),
        ("profile_latency", "num_classes", len(counts)),
        ("device", "threads", min(int(value_of(text, "device", "threads")), cpus)),
        ("device", "workers", min(int(value_of(text, "device", "workers")), cpus if cpus > 1 else 0)),
        ("search", "batch_size", _batch(text, "search", round((1 - TRAIN_FRACTION) * smallest))),
        ("retrain", "batch_size", _batch(text, "retrain", len(train))),
    ]
    for section, key, value in changes:
        text = replace_value(text, section, key, str(value))
    resolution = fitting_resolution([root / record.path for record in train])
    text = re.sub(r"^resolution: \d+", f"resolution: {resolution}", text, flags=re.MULTILINE)
    fit_batch = min(64, _power_of_two(len(train)))
    return re.sub(r"(  fit: {.*batch_size: )\d+", rf"\g<1>{fit_batch}", text)


def fitting_resolution(paths: list[Path]) -> int:
    """The median shorter side of some of the images, rounded to 32 pixels, from 32 to 224."""
    from PIL import Image

    sides = []
    for path in paths[:: max(1, len(paths) // LOOKED_AT)]:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except Exception:  # a broken one; prepare_data names it
            continue
    side = median(sides) if sides else LARGEST
    return min(LARGEST, max(STEP, STEP * round(side / STEP)))


def value_of(text: str, section: str, key: str) -> str:
    """The value on a key's line in a section of a preset."""
    match = _line(section, key).search(text)
    assert match is not None, f"{section}.{key}"
    return match[2]


def replace_value(text: str, section: str, key: str, value: str) -> str:
    """Another value in its place; the comment stays where it was."""

    def line(match: re.Match[str]) -> str:
        return match[1] + value + " " * max(1, len(match[2]) + len(match[3]) - len(value)) + match[4]

    return _line(section, key).sub(line, text, count=1)


def _line(section: str, key: str) -> re.Pattern[str]:
    return re.compile(rf"(^{section}:.*\n(?:(?:  .*)?\n)*?  {key}: )(\S+)( *)(#.*)?$", re.MULTILINE)


def _batch(text: str, section: str, images: int) -> int:
    return min(int(value_of(text, section, "batch_size")), _power_of_two(images))


def _power_of_two(images: int) -> int:
    """The largest power of two up to a number of images, 2 or more, as BatchNorm needs."""
    return max(2, 1 << (max(images, 1).bit_length() - 1))
