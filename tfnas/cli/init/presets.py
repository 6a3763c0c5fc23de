"""The presets: presets/base.yaml holds every key with its source, the other files hold what they change.

A comment belongs to the key on its line. It is part of a preset, and lines up again wherever a value has changed.

Some numbers of a preset follow from the user's images: how many classes, how many of each, how large. There are at most
as many groups as classes, no batch larger than its set, learning rates in proportion to the batches, a resolution no
larger than the images, the space for small images where it is low, and no more threads and workers than CPUs. How many
epochs is in `tfnas.cli.init.sizes`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tfnas.cli.init.project import pipeline_files
from tfnas.cli.init.sizes import fit_sizes, images_of_a_batch
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import spell

PRESETS = pipeline_files() / "presets"
BASE, TARGETS = "base", "targets"
COMMENT_COLUMN = 30
LINE = re.compile(r"(?P<indent> *)(?P<name>\w+):(?: +(?P<value>[^#\s].*?))?(?: +# (?P<comment>.*))?")

LARGEST, STEP = 224, 32  # pixels; networks halve an image five times
SAMPLED = 200  # images whose size is read
SMALL = 64  # pixels, at most: Table 1's space leaves 2 x 2 of them
SMALL_SPACE = "tf-nas-small-images"


class Entry(NamedTuple):
    """What follows a key on its line, as it is written."""

    value: str  # empty where a section begins
    comment: str


class Preset:
    """The lines of a params.yaml by their dotted keys, in their order, below an introduction."""

    def __init__(self, introduction: list[str], entries: dict[str, Entry]) -> None:
        self.introduction = introduction
        self.entries = entries

    @classmethod
    def parse(cls, text: str) -> Preset:
        """Read lines like `key: value  # comment`; the introduction is the last paragraph before the first key."""
        head, body = re.split(r"\n\n(?=\w)", text, maxsplit=1)
        entries: dict[str, Entry] = {}
        parents: list[str] = []
        for line in filter(str.strip, body.splitlines()):
            match = LINE.fullmatch(line)
            assert match is not None, f"not a line like `key: value  # comment`: {line}"
            parents = [*parents[: len(match["indent"]) // 2], match["name"]]
            entries[".".join(parents)] = Entry(match["value"] or "", match["comment"] or "")
        return cls(head.split("\n\n")[-1].splitlines(), entries)

    def overlaid(self, changes: Preset) -> Preset:
        """This preset with the values of another, which may leave a comment to this one.

        Targets have names of their own and are replaced as a whole.
        """
        drops = TARGETS in changes.entries
        entries = {k: entry for k, entry in self.entries.items() if not (drops and k.startswith(f"{TARGETS}."))}
        for key, (value, comment) in changes.entries.items():
            entries[key] = Entry(value, comment or (entries[key].comment if key in entries else ""))
        sections = list(dict.fromkeys(map(_section, entries)))
        ordered = sorted(entries, key=lambda key: sections.index(_section(key)))
        return Preset([*changes.introduction, *self.introduction], {key: entries[key] for key in ordered})

    def value(self, key: str) -> str:
        """The text of a value: `retrain.epochs`, or within braces, `rank_classes.fit.batch_size`."""
        if key in self.entries:
            return self.entries[key].value
        line, leaf = key.rsplit(".", 1)
        match = _in_braces(leaf).search(self.entries[line].value)
        assert match is not None, key
        return match[0]

    def replace(self, key: str, value: str) -> None:
        """Put another value in its place, leaving its comment."""
        if key in self.entries:
            self.entries[key] = self.entries[key]._replace(value=value)
        else:
            line, leaf = key.rsplit(".", 1)
            self.replace(line, _in_braces(leaf).sub(lambda _: value, self.value(line), count=1))

    def render(self) -> str:
        """The whole text, with a blank line before each section and the comments of a section in one column."""
        lines = [*self.introduction, ""]
        for key, (value, comment) in self.entries.items():
            if "." not in key and not value and lines[-1]:
                lines.append("")
            text = _code(key, value)
            lines.append(f"{text.ljust(max(self._column(key), len(text) + 2))}# {comment}" if comment else text)
        return "\n".join(lines) + "\n"

    def _column(self, key: str) -> int:
        """Where the comments of a key's section begin: further right where half of its lines or more are long."""
        section = _section(key)
        if key == section:
            return COMMENT_COLUMN
        within = [(k, entry) for k, entry in self.entries.items() if _section(k) == section != k and entry.comment]
        widths = [len(_code(k, entry.value)) + 2 for k, entry in within]
        is_wide = 2 * sum(width > COMMENT_COLUMN for width in widths) >= len(widths)
        return max(widths) if is_wide else COMMENT_COLUMN


def _section(key: str) -> str:
    return key.partition(".")[0]


def _code(key: str, value: str) -> str:
    """A line without its comment."""
    *parents, name = key.split(".")
    return f"{'  ' * len(parents)}{name}: {value}".rstrip()


def _in_braces(leaf: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=\b{leaf}: )[^,}}]+")


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if path.stem != BASE)


def load_preset(name: str) -> Preset:
    """A preset with every key.

    Raises:
        UserError: unknown name.
    """
    if name not in preset_names():
        raise UserError(f"init: unknown preset {name!r}; known: {', '.join(preset_names())}")
    base, changes = (Preset.parse((PRESETS / f"{file}.yaml").read_text(encoding="utf-8")) for file in (BASE, name))
    return base.overlaid(changes)


def render_preset(name: str) -> str:
    """A preset as a whole params.yaml, with every key and its comment."""
    return load_preset(name).render()


class TrainingImages(NamedTuple):
    """What a folder of images holds to train on."""

    paths: list[Path]
    counts: Counter[str]  # of each class
    val: int  # images to validate on


def fit_to_images(preset: Preset, images: TrainingImages, share: float = 1.0) -> None:
    """Change the values of a preset that do not suit the images.

    Args:
        share: of the epochs that `tfnas.cli.init.sizes` gives, for less time.
    """
    paths, counts, _ = images
    groups = min(int(preset.value("build_subset.groups")), len(counts))
    smallest = sum(sorted(counts.values())[:groups])  # the fewest images that a subset can have
    validation_fraction = 1 - float(preset.value("build_subset.train_fraction"))
    fit_value(preset, "build_subset.groups", str(groups))
    fit_value(preset, "profile_latency.num_classes", str(len(counts)))
    fit_value(preset, "resolution", str(fitting_resolution(paths)))
    _fit_space(preset)
    _fit_cpus(preset)
    _fit_batch(preset, "search.batch_size", round(validation_fraction * smallest), rate="search.weights.learning_rate")
    most = images_of_a_batch(len(paths))
    _fit_batch(preset, "retrain.batch_size", most, rate="retrain.learning_rate")
    _fit_batch(preset, "rank_classes.fit.batch_size", most, rate=None)  # Adam's rate does not follow the batch
    fit_sizes(preset, counts, share)


def training_images(preset: Preset, root: Path) -> TrainingImages:
    """The images of a folder, as the preset's prepare_data will list them.

    Raises:
        UserError: the folder does not hold images of two classes or more.
    """
    from tfnas.data.sources.image_folder import announce_left_out, scan_image_folder

    records, _, left_out = scan_image_folder(root, val_fraction=float(preset.value("prepare_data.val_fraction")))
    announce_left_out(root, left_out)
    train = [record for record in records if record.split == "train"]
    counts = Counter(record.class_name for record in train)
    if len(counts) < 2:
        raise UserError(f"init: --data-root {root}: has {len(counts)} classes; a classifier needs 2 or more")
    return TrainingImages([root / record.path for record in train], counts, len(records) - len(train))


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
