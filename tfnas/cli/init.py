"""`tfnas init`: a complete params.yaml out of a preset.

Numbers of the preset for own images that follow from the images: how many classes, how many of each, how large.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tfnas.cli._options import OutputFile
from tfnas.jobs.artifacts import write_text
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import spell

HELP = "Write params.yaml from a preset: digits, imagefolder, imagenet-gpu, imagenet-cpu, ..."
PRESETS = Path(__file__).parents[2] / "presets"  # of the checkout, which the pipeline needs anyway
PARAMS = OutputFile("params.yaml")
OWN_IMAGES = "imagefolder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", help="name of the preset")
    parser.add_argument("--list", action="store_true", help="name the presets and say what they are for")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="folder with train/<class>/* and val/<class>/*, or <class>/*"
    )
    parser.add_argument(
        "--cifar-root", type=Path, metavar="DIR", help="folder with cifar-10-batches-py and cifar-100-python"
    )
    parser.add_argument("--out", type=OutputFile, default=PARAMS, help="file to write (default: params.yaml)")


def run(options: argparse.Namespace) -> None:
    if options.list:
        for name in preset_names():
            print(f"{name:20} {_title(name)}")
        return
    if options.preset is None:
        raise UserError(f"init: which preset? One of {', '.join(preset_names())}; `tfnas init --list` describes them")
    text = read_preset(options.preset)
    text = _fill(text, options.preset, "--data-root", options.data_root)
    text = _fill(text, options.preset, "--cifar-root", options.cifar_root)
    if options.preset == OWN_IMAGES:
        text = _fit(text, options.data_root)
    backup = _keep(options.out, text)
    write_text(options.out, text)
    print(f"{options.out}: written from preset {options.preset}{backup}.")
    print("Look at `targets`, then run: snakemake --cores all")


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_preset(name: str) -> str:
    """The text of a preset.

    Raises:
        UserError: unknown name.
    """
    if name not in preset_names():
        raise UserError(f"init: unknown preset {name!r}; known: {', '.join(preset_names())}")
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def _title(name: str) -> str:
    return read_preset(name).splitlines()[0].removeprefix("# ")


def _fill(text: str, preset: str, option: str, folder: Path | None) -> str:
    """Put a folder in the place that the preset marks with `set by <option>`."""
    pattern = re.compile(rf"^(  root: )(\S+)( +# set by {option}.*)$", re.MULTILINE)
    if folder is None:
        if option == "--data-root" and pattern.search(text):
            raise UserError(f"init: preset {preset} needs {option} DIR, the folder of your images")
        return text
    if not pattern.search(text):
        raise UserError(f"init: preset {preset} has no place for {option}; leave it out")
    if not folder.is_dir():
        raise UserError(f"init: {option} {folder}: there is no such folder")
    quoted = "'" + str(folder.resolve()).replace("'", "''") + "'"
    return pattern.sub(lambda match: f"{match[1]}{quoted}{match[3]}", text)


def _fit(text: str, root: Path) -> str:
    """Numbers that follow from the images; a folder that is not ready yet leaves them, and prepare_data looks again."""
    pass

    try:
        return fit_to_images(text, root)
    except UserError as error:
        print(f"note: groups, batches and resolution are the preset's, not your images' ({error})")
        return text


def _keep(path: Path, text: str) -> str:
    """Move a params.yaml that is no preset as shipped, and so holds work of the user's, out of the way."""
    shipped = {text, *map(read_preset, preset_names())}
    if not path.exists() or path.read_bytes() in {preset.encode() for preset in shipped}:
        return ""
    backup = path.with_name(f"{path.name}.bak")
    if backup.exists():
        raise UserError(f"init: {path} and {backup} both exist; move one of them away first")
    path.rename(backup)
    return f"; the file before it is now {backup}"


Change = tuple[str, str, Any]  # section, key, value

LARGEST, STEP = 224, 32  # pixels; networks halve an image five times
LOOKED_AT = 200  # images whose size is looked at
VAL_FRACTION, TRAIN_FRACTION = 0.2, 0.8  # as the preset


def fit_to_images(text: str, root: Path) -> str:
    """The preset with at most as many groups as classes, batches that are not larger than a set, learning rates in
    proportion to them, and a resolution that is not larger than the images.

    Raises:
        UserError: the folder is none of images.
    """
    from tfnas.compute.devices import allowed_cpus
    from tfnas.data.sources.image_folder import announce_left_out, scan_image_folder

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
    changes: list[Change] = [
        ("build_subset", "groups", groups),
        ("profile_latency", "num_classes", len(counts)),
        ("device", "threads", min(int(value_of(text, "device", "threads")), cpus)),
        ("device", "workers", min(int(value_of(text, "device", "workers")), cpus if cpus > 1 else 0)),
        ("search", "batch_size", _batch(text, "search", round((1 - TRAIN_FRACTION) * smallest))),
        ("retrain", "batch_size", _batch(text, "retrain", len(train))),
    ]
    changes += [
        ("", "resolution", fitting_resolution([root / record.path for record in train])),
        ("rank_classes", "fit.batch_size", _batch(text, "rank_classes", len(train), key="fit.batch_size")),
        *_scaled_rates(text, changes),
    ]
    for section, key, value in changes:
        text = fit_value(text, section, key, str(value))
    return text


RATES = {"search": "weights.learning_rate", "retrain": "learning_rate"}  # of SGD; Adam's do not follow the batch


def _scaled_rates(text: str, changes: Sequence[Change]) -> Iterator[Change]:
    """The learning rates of SGD in proportion to the batches."""
    for section, key, batch_size in changes:
        if key == "batch_size" and section in RATES:
            scale = batch_size / int(value_of(text, section, key))
            rate = float(value_of(text, section, RATES[section])) * scale
            yield section, RATES[section], spell(float(f"{rate:.6g}"))


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


def fit_value(text: str, section: str, key: str, value: str) -> str:
    """Another value in its place, and beside it where it comes from: no longer from where the preset says."""
    old = value_of(text, section, key)
    if float(old) == float(value):
        return text
    text = replace_value(text, section, key, value)
    match = _line(section, key).search(text)
    assert match is not None
    comment = (match[4] or "#").removeprefix("#").strip()
    if comment.startswith("[ours]"):
        return text
    name = "" if "." not in key else f"{key.rpartition('.')[2]} "
    return f"{text[: match.start(4)]}# [ours] fits your images; the preset: {name}{old} {comment}{text[match.end(4) :]}"


def value_of(text: str, section: str, key: str) -> str:
    """The value on a key's line in a section of a preset."""
    match = _line(section, key).search(text)
    assert match is not None, f"{section}.{key}"
    return match[2]


def replace_value(text: str, section: str, key: str, value: str) -> str:
    """Another value in its place; the comment stays where it was."""

    def line(match: re.Match[str]) -> str:
        rest = match[3].rstrip()
        return match[1] + value + rest + " " * max(1, len(match[2] + match[3]) - len(value + rest)) + match[4]

    return _line(section, key).sub(line, text, count=1)


def _line(section: str, key: str) -> re.Pattern[str]:
    """Of a key at the top (no section), in a section, or in braces within one (`fit.batch_size`)."""
    parent, _, leaf = key.rpartition(".")
    place = rf"^{section}:.*\n(?:(?:  .*)?\n)*?  " if section else "^"
    braces = rf"{parent}: {{(?:[^#\n]* )?" if parent else ""
    return re.compile(rf"({place}{braces}{leaf}: )([^\s,}}]+)([^#\n]*)(#.*)?$", re.MULTILINE)


def _batch(text: str, section: str, images: int, *, key: str = "batch_size") -> int:
    return min(int(value_of(text, section, key)), _power_of_two(images))


def _power_of_two(images: int) -> int:
    """The largest power of two up to a number of images, 2 or more, as BatchNorm needs."""
    return max(2, 1 << (max(images, 1).bit_length() - 1))
