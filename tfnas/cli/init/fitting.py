"""The numbers of a preset that follow from the user's images: how many classes, how many of each, how large.

At most as many groups as there are classes, no batch larger than its set, learning rates in proportion to the batches,
a resolution no larger than the images, the space for small images where it is low, and no more threads and workers than
there are CPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tfnas.cli.init.presets import Preset
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import spell

LARGEST, STEP = 224, 32  # pixels; networks halve an image five times
SAMPLED = 200  # images whose size is read
SMALL = 64  # pixels, at most: Table 1's space leaves 2 x 2 of them
SMALL_SPACE = "tf-nas-small-images"


def fit_to_images(preset: Preset, root: Path) -> None:
    """Change the values of a preset that do not suit the images in a folder.

    Raises:
        UserError: the folder does not hold images of two classes or more.
    """
    paths, counts = _training_images(preset, root)
    groups = min(int(preset.value("build_subset.groups")), len(counts))
    smallest = sum(sorted(counts.values())[:groups])  # the fewest images that a subset can have
    validation_fraction = 1 - float(preset.value("build_subset.train_fraction"))
    fit_value(preset, "build_subset.groups", str(groups))
    fit_value(preset, "profile_latency.num_classes", str(len(counts)))
    fit_value(preset, "resolution", str(fitting_resolution(paths)))
    _fit_space(preset)
    _fit_cpus(preset)
    _fit_batch(preset, "search.batch_size", round(validation_fraction * smallest), rate="search.weights.learning_rate")
    _fit_batch(preset, "retrain.batch_size", len(paths), rate="retrain.learning_rate")
    _fit_batch(preset, "rank_classes.fit.batch_size", len(paths), rate=None)  # Adam's rate does not follow the batch


def _training_images(preset: Preset, root: Path) -> tuple[list[Path], Counter[str]]:
    """The files, and how many there are of each class."""
    from tfnas.data.sources.image_folder import announce_left_out, scan_image_folder

    records, _, left_out = scan_image_folder(root, val_fraction=float(preset.value("prepare_data.val_fraction")))
    announce_left_out(root, left_out)
    train = [record for record in records if record.split == "train"]
    counts = Counter(record.class_name for record in train)
    if len(counts) < 2:
        raise UserError(f"init: --data-root {root}: has {len(counts)} classes; a classifier needs 2 or more")
    return [root / record.path for record in train], counts


def _fit_space(preset: Preset) -> None:
    """Take the space for small images where the resolution is low, and say so."""
    resolution, before = int(preset.value("resolution")), preset.value("space")
    if resolution > SMALL:
        return
    why = f"for {resolution} pixels: its last maps are {resolution // 8} x {resolution // 8}"
    others = f"those of {before} {resolution // 32} x {resolution // 32}"
    preset.replace("space", SMALL_SPACE)
    preset.entries["space"] = preset.entries["space"]._replace(comment=f"[ours] {why}, {others}")
    print(f"space: {SMALL_SPACE} {why}, {others}.")


def _fit_cpus(preset: Preset) -> None:
    from tfnas.compute.devices import allowed_cpus

    cpus = allowed_cpus()
    for key, most in (("device.threads", cpus), ("device.workers", cpus if cpus > 1 else 0)):
        fit_value(preset, key, str(min(int(preset.value(key)), most)))


def _fit_batch(preset: Preset, key: str, images: int, *, rate: str | None) -> None:
    """Make a batch no larger than a set of images, and SGD's learning rate follow it."""
    before = int(preset.value(key))
    batch_size = min(before, _power_of_two(images))
    fit_value(preset, key, str(batch_size))
    if rate is not None:
        fit_value(preset, rate, spell(float(f"{float(preset.value(rate)) * (batch_size / before):.6g}")))


def _power_of_two(images: int) -> int:
    """The largest power of two up to a number of images; at least 2, as BatchNorm needs."""
    return max(2, 1 << (max(images, 1).bit_length() - 1))


def fitting_resolution(paths: Sequence[Path]) -> int:
    """The median shorter side of a sample of the images, rounded to 32 pixels, from 32 to 224."""
    from PIL import Image

    sides = []
    for path in paths[:: max(1, len(paths) // SAMPLED)]:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except Exception:  # a broken image; prepare_data names it
            continue
    side = median(sides) if sides else LARGEST
    return min(LARGEST, max(STEP, STEP * round(side / STEP)))


def fit_value(preset: Preset, key: str, value: str) -> None:
    """Replace a value, and say in its comment that its source is no longer the preset's."""
    old = preset.value(key)
    if float(old) == float(value):
        return
    preset.replace(key, value)
    line, leaf = (key, "") if key in preset.entries else key.rsplit(".", 1)
    comment = preset.entries[line].comment
    if not comment.startswith("[ours]"):
        was = f"{leaf} {old}".strip()
        preset.entries[line] = preset.entries[line]._replace(
            comment=f"[ours] fits your images; the preset: {was} {comment}".rstrip()
        )
