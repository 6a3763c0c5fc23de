"""`tfnas suggest`: from a folder of images, a device and a latency to params.yaml, and what to expect of a run."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tfnas.cli._console import OutputFile
from tfnas.cli.init import OWN_IMAGES, PARAMS, set_root, tell_how_to_run, write_params
from tfnas.cli.init.presets import Entry, Preset, TrainingImages, fit_to_images, load_preset, training_images
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require

HELP = (
    "Look at your images and your device, write params.yaml for a latency limit, and say what will be done, how long"
    " it will take and what to expect. It measures for about half a minute."
)
TARGET = "own"
LIMIT = re.compile(r"(\d+(?:\.\d+)?) ?ms")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with train/<class>/* and val/<class>/*, or <class>/*",
    )
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--limit", metavar="MS", help="latency that the network may have, such as 15ms")
    limit.add_argument(
        "--relative",
        type=float,
        metavar="R",
        help="or its place from the space's fastest network, 0, to its slowest, 1",
    )
    parser.add_argument(
        "--device", default="cpu", help="that the network will run on: cpu, cuda or cuda:N (default: cpu)"
    )
    parser.add_argument("--hours", type=float, metavar="H", help="shorten search and retraining to take about so long")
    parser.add_argument("--out", type=OutputFile, default=PARAMS, help="file to write (default: params.yaml)")


def run(options: argparse.Namespace) -> None:
    constraint = read_constraint(options.limit, options.relative)
    if options.hours is not None and not options.hours > 0:
        raise UserError(f"suggest: --hours {options.hours:g}: write more than 0, such as 2")
    if not options.data.is_dir():
        raise UserError(f"suggest: --data {options.data}: there is no such folder; name the one that holds your images")
    require("pipeline", by="tfnas suggest")
    images = _look(options.data)
    from tfnas.cli.suggest.advice import check_device, suggest

    devices = check_device(options.device)
    preset = write_preset(options.data, images, constraint, devices)
    text, printed = suggest(
        options, images, preset, lambda share: write_preset(options.data, images, constraint, devices, share)
    )
    backup = write_params(options.out, text)
    print(printed)
    print(f"\n{options.out}: written{backup}.")
    tell_how_to_run(options.out, "Next:")


def read_constraint(limit: str | None, relative: float | None) -> str:
    """A target's constraint as params.yaml has it.

    Raises:
        UserError: not a latency above 0, or not a position from 0 to 1.
    """
    if relative is not None:
        if not 0 <= relative <= 1:
            raise UserError(f"suggest: --relative {relative:g}: write 0 (the fastest network) to 1 (the slowest)")
        return f"{{relative: {relative:g}}}"
    found = LIMIT.fullmatch(limit or "")
    if found is None or not float(found[1]) > 0:
        raise UserError(f"suggest: --limit {limit!r}: write milliseconds above 0 with their unit, such as 15ms")
    return f"{{latency_ms: {float(found[1])}}}"


def _look(root: Path) -> TrainingImages:
    """The images of a folder, with errors that name the option."""
    try:
        return training_images(load_preset(OWN_IMAGES), root)
    except UserError as error:
        reason = str(error).removeprefix("init: --data-root ")
        raise UserError(f"suggest: --data {reason}") from None


def write_preset(
    root: Path, images: TrainingImages, constraint: str, devices: tuple[str, str], share: float = 1.0
) -> Preset:
    """Preset imagefolder for these images, with one target.

    Args:
        devices: to train on, and to measure on.
        share: of the epochs, for less time.
    """
    preset = load_preset(OWN_IMAGES)
    set_root(preset, OWN_IMAGES, "--data-root", root)
    fit_to_images(preset, images, share)
    preset.replace("device.name", devices[0])
    preset.replace("profile_latency.device", devices[1])
    preset.replace("profile_latency.on_busy", "warn")
    targets = {
        "targets": preset.entries["targets"],
        f"targets.{TARGET}": Entry("", ""),
        f"targets.{TARGET}.constraint": Entry(constraint, "[ours] as asked of tfnas suggest"),
        f"targets.{TARGET}.dropout": Entry("0.2", "[B]"),
    }
    entries: dict[str, Entry] = {}
    for key, entry in preset.entries.items():
        if key == "targets":
            entries |= targets
        elif not key.startswith("targets."):
            entries[key] = entry
    preset.entries = entries
    return preset
