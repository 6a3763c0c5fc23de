"""`tfnas export`: a trained network for use elsewhere, checked, timed and described."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tfnas.cli._console import OutputFolder, check_numbers
from tfnas.cli.evaluate import add_network_arguments, choose_architecture, names_a_network
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require

if TYPE_CHECKING:
    from torch import nn

    from tfnas.deploy.export import Checked, Runner
    from tfnas.deploy.load import Origin
    from tfnas.deploy.model_card import Card, LatencyTarget, Measured
    from tfnas.deploy.preprocessing import Preprocessed
    from tfnas.deploy.quantization import ImageSets, Quantized
    from tfnas.space import Architecture

HELP = (
    "Write a trained network as ONNX, as a torch.export program, or for another runtime; check each against PyTorch"
    " eager, time them, and write a model card."
)
FORMATS = {  # and the ends of their files' names
    "onnx": "onnx",
    "pt2": "pt2",
    "openvino": "xml",
    "executorch": "pte",
    "litert": "tflite",
    "ncnn": "ncnn.param",
}
DEFAULT_FORMATS = "onnx,pt2"
INT8_EXTRAS = {"onnx": "onnx", "openvino": "openvino-int8"}  # of the formats that have 8 bits
NUMBERS = ("resolution", "threads", "batch_size", "repeats", "calibration_images")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help="weights.pt, or a .pth.tar of the authors; to try out a runtime with random weights, a name from"
        " `tfnas zoo list` or an architecture.json",
    )
    parser.add_argument("--out", type=OutputFolder, required=True, metavar="DIR", help="folder to write into")
    add_network_arguments(parser)
    parser.add_argument(
        "--formats",
        default=DEFAULT_FORMATS,
        metavar="LIST",
        help=f"of {', '.join(FORMATS)} (default: {DEFAULT_FORMATS})",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="X",
        help="largest allowed difference in a logit (default: 1e-4)",
    )
    parser.add_argument(
        "--with-preprocessing",
        action="store_true",
        help="also write an ONNX file that resizes, cuts and normalizes itself: a uint8 picture of any size in,"
        " probabilities out; with int8, of the quantized network",
    )
    _add_int8_arguments(parser)
    _add_measuring_arguments(parser)


def _add_int8_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments for quantization."""
    parser.add_argument(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="int8: also write the onnx and openvino files quantized, NAME_int8 (default: float32)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="images for int8: results/prepare_data, a CIFAR set, or a folder with train/<class>/* and val/<class>/*"
        " (default: those that the weights were trained on)",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=256,
        metavar="N",
        help="training images that int8 is calibrated on (default: 256)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=1.0,
        metavar="X",
        help="points of top-1 on the validation images that int8 may cost (default: 1.0)",
    )


def _add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments for timing the exports."""
    parser.add_argument(
        "--table",
        metavar="FILE_OR_NAME",
        help="latency table, or a name of `tfnas table list` (default: the one that the architecture was derived with)",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="B", help="images per timed run (default: the table's; else 1)"
    )
    parser.add_argument(
        "--repeats", type=int, default=20, metavar="R", help="timed runs in each of the 5 rounds (default: 20)"
    )


def run(options: argparse.Namespace) -> None:
    check_numbers(options, "export", dict.fromkeys(NUMBERS, 1))
    if not options.tolerance >= 0:
        raise UserError(f"export: --tolerance {options.tolerance}: must be 0 or more")
    formats = list(dict.fromkeys(options.formats.split(",")))
    unknown = next((name for name in formats if name not in FORMATS), None)
    if unknown is not None:
        raise UserError(f"export: --formats {unknown!r}: unknown format; known: {', '.join(FORMATS)}")
    if options.with_preprocessing and "onnx" not in formats:
        raise UserError("export: --with-preprocessing: is for ONNX; add onnx to --formats")
    if "onnx" in formats:
        require("onnx", by="tfnas export --formats onnx")
    _check_int8(options, formats)
    from tfnas.deploy.export import RUNTIMES as CONVERTING
    from tfnas.deploy.model_card import write_card

    for runtime in CONVERTING.values():
        if runtime.name in formats:
            runtime.check_installed(by=f"tfnas export --formats {runtime.name}")
    card = export(options, formats)
    write_card(card, options.out)
    print(summary(card, options.out))


def _check_int8(options: argparse.Namespace, formats: list[str]) -> None:
    """Check the options of quantization.

    Raises:
        UserError: one has no meaning, or a package is missing.
    """
    if options.precision != "int8":
        if options.data is not None:
            raise UserError(f"export: --data {options.data}: is for --precision int8; add it, or leave --data out")
        return
    if not options.max_drop >= 0:
        raise UserError(f"export: --max-drop {options.max_drop}: must be 0 or more")
    quantizing = [name for name in formats if name in INT8_EXTRAS]
    if not quantizing:
        raise UserError("export: --precision int8: is for onnx and openvino; add one to --formats")
    for name in quantizing:
        require(INT8_EXTRAS[name], by=f"tfnas export --precision int8 --formats {name}")


def export(options: argparse.Namespace, formats: list[str]) -> Card:
    """Write and check the files, time them, and gather what goes on the card.

    Raises:
        UserError: a file cannot be read, or an export is not the network.
    """
    from tfnas.deploy.model_card import read_latency_target

    subject = read_subject(options)
    latency_target = read_latency_target(subject.architecture, subject.file, options.table)
    options.resolution = options.resolution or subject.origin.resolution or 224
    options.threads = options.threads or subject.origin.value("device.threads", 1)
    options.batch_size = options.batch_size or (latency_target.batch_size if latency_target else 1)
    made = export_and_measure(subject, formats, options, _image_sets(subject, options))
    preprocessed = _with_preprocessing(subject, options) if options.with_preprocessing else None
    card = describe(subject, latency_target, made, preprocessed, options)
    return label_files(card, options.out)


def _with_preprocessing(subject: Subject, options: argparse.Namespace) -> Preprocessed:
    from tfnas.deploy.export import run_onnx
    from tfnas.deploy.preprocessing import export_with_preprocessing
    from tfnas.deploy.quantization import SUFFIX

    exported, network = options.out / f"{subject.architecture.name}.onnx", subject.network
    if options.precision == "int8":
        exported = exported.with_stem(f"{exported.stem}{SUFFIX}")
        network = run_onnx(exported, threads=options.threads)
    how = {"threads": options.threads, "tolerance": options.tolerance}
    return export_with_preprocessing(network, options.resolution, exported, **how)


def _image_sets(subject: Subject, options: argparse.Namespace) -> ImageSets | None:
    """The images that int8 needs; None for float32.

    Raises:
        UserError: there are none, or the weights are random.
    """
    if options.precision != "int8":
        return None
    if subject.random_weights:
        raise UserError(
            f"export: {options.weights}: has no trained weights, whose accuracy in int8 could be compared; pass a"
            " weights.pt, or measure latency alone by `tfnas compare --precision int8 --backend onnx-runtime`"
        )
    from tfnas.deploy.quantization import read_image_sets

    return read_image_sets(subject.origin, subject.network, options.resolution, data=options.data)


def label_files(card: Card, folder: Path) -> Card:
    """Write into the ONNX files what is on the card; returns it with the files' digests."""
    from tfnas.deploy.preprocessing import metadata, write_metadata
    from tfnas.jobs.artifacts import digest_file

    how = {"device": card.device, "batch_size": card.batch_size, "threads": card.threads, "busy": card.busy}
    latency = how | {"ms": {name: timing.median_ms for name, timing in card.measured.items()}}
    if card.latency_target is not None:
        latency["by_table_ms"] = card.latency_target.table_ms
    classes = card.trained_on.classes
    facts = metadata(card.architecture.name, card.resolution, classes=classes, exif=card.exif, latency=latency)
    preprocessed = [card.preprocessed.path.name] if card.preprocessed else []
    quantized = [*card.int8_files, *(preprocessed if card.quantized else [])]
    for name in card.files:
        if name.endswith(".onnx"):
            write_metadata(folder / name, facts | {"precision": "int8" if name in quantized else "float32"})
    digests = {name: digest_file(folder / name) for name in card.files}
    return replace(card, digests={**card.digests, **digests})


def describe(
    subject: Subject,
    latency_target: LatencyTarget | None,
    made: Exports,
    preprocessed: Preprocessed | None,
    options: argparse.Namespace,
) -> Card:
    """The card of a network, its files and their latencies."""
    from tfnas.compute.devices import device_name
    from tfnas.deploy.export import files_of
    from tfnas.deploy.load import read_trained_on
    from tfnas.deploy.model_card import Card
    from tfnas.jobs.artifacts import digest_file, read_json

    origin, metrics = subject.origin, options.weights.with_name("metrics.json")
    return Card(
        architecture=subject.architecture,
        resolution=options.resolution,
        num_classes=subject.network.get_submodule("classifier.linear").out_features,
        metrics=read_json(metrics) if origin.fields and metrics.is_file() else {},
        origin=origin,
        trained_on=read_trained_on(origin),
        latency_target=latency_target,
        device=device_name("cpu"),
        batch_size=options.batch_size,
        threads=options.threads,
        measured=made.measured.timings,
        busy=made.measured.busy,
        differences={path.name: runner.difference for path, runner in made.checked.items()},
        preprocessed=preprocessed,
        quantized=made.quantized,
        digests={file.name: digest_file(file) for path in made.paths for file in files_of(path)},
        random_weights=subject.random_weights,
    )


class Exports(NamedTuple):
    """What was written, compared and timed."""

    checked: Mapping[Path, Checked]
    quantized: list[Quantized]
    measured: Measured

    @property
    def paths(self) -> list[Path]:
        """The main file of each export."""
        return [*self.checked, *(made.path for made in self.quantized)]


def export_and_measure(
    subject: Subject, formats: list[str], options: argparse.Namespace, sets: ImageSets | None
) -> Exports:
    """Write a file per format, compare each with eager, and time them all.

    Args:
        sets: to quantize with; None for float32 alone.

    Raises:
        UserError: an export does not compute what the network does, or 8 bits cost too much accuracy.
    """
    from tfnas.deploy.export import export_checked
    from tfnas.deploy.model_card import measure

    resolution, threads = options.resolution, options.threads
    paths = [options.out / f"{subject.architecture.name}.{FORMATS[name]}" for name in formats]
    checked = {
        path: export_checked(subject.network, resolution, path, threads=threads, tolerance=options.tolerance)
        for path in paths
    }
    runners = {"torch eager": subject.network} | {RUNTIMES[path.suffix]: runner for path, runner in checked.items()}
    quantized = [] if sets is None else quantize(subject, list(checked), sets, options)
    runners |= {f"{RUNTIMES[made.path.suffix]} int8": runner for made, runner in quantized}
    how = {"batch_size": options.batch_size, "threads": threads, "repeats": options.repeats}
    return Exports(checked, [made for made, _ in quantized], measure(runners, resolution, **how))


def quantize(
    subject: Subject, paths: Sequence[Path], sets: ImageSets, options: argparse.Namespace
) -> list[tuple[Quantized, Runner]]:
    """The 8-bit form of each exported file that has one, judged on the validation images.

    Raises:
        UserError: it costs more than `--max-drop`.
    """
    from tfnas.deploy.quantization import quantize_checked, top1_percent

    quantizing = [path for path in paths if path.suffix in [f".{FORMATS[name]}" for name in INT8_EXTRAS]]
    how = {"images": options.calibration_images, "max_drop": options.max_drop, "threads": options.threads}
    before = top1_percent(subject.network, sets.val)
    return [quantize_checked(subject.network, path, sets, before=before, **how) for path in quantizing]


class Subject(NamedTuple):
    """A network to export, and what is known about it."""

    architecture: Architecture
    file: Path | None  # of the architecture
    network: nn.Module
    origin: Origin
    random_weights: bool


def read_subject(options: argparse.Namespace) -> Subject:
    """The network with trained weights, or with random ones where only an architecture is named.

    Raises:
        UserError: a file cannot be read, or weights and architecture do not belong together.
    """
    from tfnas.cli.zoo import read_network
    from tfnas.deploy.load import load_network, read_origin

    if options.architecture is None and names_a_network(options.weights):
        return fresh_network(options.weights)
    origin = read_origin(options.weights)
    name = choose_architecture(options, origin)
    architecture = read_network(name)
    file = Path(name) if Path(name).is_file() else None
    network = load_network(architecture, options.weights)
    return Subject(architecture, file, network, origin, random_weights=False)


def fresh_network(name: Path) -> Subject:
    """A network with random weights, always the same ones."""
    import torch

    from tfnas.cli.zoo import read_network
    from tfnas.deploy.load import Origin
    from tfnas.space import build_network

    architecture = read_network(str(name))
    torch.manual_seed(0)
    network = build_network(architecture).eval()
    return Subject(architecture, name if name.is_file() else None, network, Origin({}), random_weights=True)


RUNTIMES = {  # by the file's suffix
    ".onnx": "ONNX Runtime",
    ".pt2": "torch.export",
    ".xml": "OpenVINO",
    ".pte": "ExecuTorch",
    ".tflite": "LiteRT",
    ".param": "ncnn",
}


def summary(card: Card, folder: Path) -> str:
    """What was written, how close it is, and how fast."""
    lines = ["The weights are random: use this to try out a runtime, not to classify images."] * card.random_weights
    lines += [
        f"{folder / name}: largest difference to eager {difference:.2g}, batches 1 and 7"
        for name, difference in card.differences.items()
    ]
    lines += [
        f"{made.path}: top-1 {made.top1_percent:.2f} % on {made.val_images} validation images, in float32"
        f" {made.float_top1_percent:.2f} %; calibrated on {made.calibration_images} training images"
        for made in card.quantized
    ]
    if card.preprocessed is not None:
        lines.append(_told_preprocessed(card.preprocessed, "the int8 file's" if card.quantized else "eager's"))
    latency_target = card.latency_target
    if latency_target is not None:
        target = "" if latency_target.target_ms is None else f"target {latency_target.target_ms:.3f} ms, "
        lines.append(f"{target}table {latency_target.table_ms:.3f} ms ({latency_target.device}, {latency_target.how})")
    times = ", ".join(f"{name} {timing.median_ms:.3f} ms" for name, timing in card.measured.items())
    lines.append(f"{times} ({card.device}, batch {card.batch_size}, threads {card.threads})")
    if card.busy:
        lines.append("warning: other programs ran during the measurements; these latencies are too long")
    lines.append(f"{folder / 'MODEL_CARD.md'}: has the same numbers, and where the network comes from")
    return "\n".join(lines)


def _told_preprocessed(made: Preprocessed, whose: str) -> str:
    return (
        f"{made.path}: pixels differ by {made.levels:.2g} of 255 from the training's, probabilities by"
        f" {made.difference:.2g} from {whose}, on pictures of odd sizes"
    )
