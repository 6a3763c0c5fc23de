"""`tfnas export`: a trained network for use elsewhere, checked, timed and described."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tfnas.cli._console import OutputFolder, check_numbers
from tfnas.cli.evaluate import add_network_arguments, choose_architecture, names_a_network
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require

if TYPE_CHECKING:
    from torch import nn

    from tfnas.deploy.export import Checked
    from tfnas.deploy.load import Origin
    from tfnas.deploy.model_card import Card, LatencyTarget, Measured
    from tfnas.deploy.preprocessing import Preprocessed
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
        " probabilities out",
    )
    _add_measuring_arguments(parser)


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
    check_numbers(options, "export", dict.fromkeys(("resolution", "threads", "batch_size", "repeats"), 1))
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
    from tfnas.deploy.export import RUNTIMES as CONVERTING
    from tfnas.deploy.model_card import write_card

    for runtime in CONVERTING.values():
        if runtime.name in formats:
            runtime.check_installed(by=f"tfnas export --formats {runtime.name}")
    card = export(options, formats)
    write_card(card, options.out)
    print(summary(card, options.out))


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
    checked, measured = export_and_measure(subject, formats, options)
    preprocessed = _with_preprocessing(subject, options) if options.with_preprocessing else None
    card = describe(subject, latency_target, checked, measured, preprocessed, options)
    return label_files(card, options.out)


def _with_preprocessing(subject: Subject, options: argparse.Namespace) -> Preprocessed:
    from tfnas.deploy.preprocessing import export_with_preprocessing

    exported = options.out / f"{subject.architecture.name}.onnx"
    how = {"threads": options.threads, "tolerance": options.tolerance}
    return export_with_preprocessing(subject.network, options.resolution, exported, **how)


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
    for name in card.files:
        if name.endswith(".onnx"):
            write_metadata(folder / name, facts)
    digests = {name: digest_file(folder / name) for name in card.files}
    return replace(card, digests={**card.digests, **digests})


def describe(
    subject: Subject,
    latency_target: LatencyTarget | None,
    checked: Mapping[Path, Checked],
    measured: Measured,
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
        measured=measured.timings,
        busy=measured.busy,
        differences={path.name: runner.difference for path, runner in checked.items()},
        preprocessed=preprocessed,
        digests={file.name: digest_file(file) for path in checked for file in files_of(path)},
        random_weights=subject.random_weights,
    )


def export_and_measure(
    subject: Subject, formats: list[str], options: argparse.Namespace
) -> tuple[dict[Path, Checked], Measured]:
    """Write a file per format, compare each with eager, and time them all.

    Raises:
        UserError: an export does not compute what the network does.
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
    return checked, measure(
        runners, resolution, batch_size=options.batch_size, threads=threads, repeats=options.repeats
    )


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
    made = card.preprocessed
    if made is not None:
        lines.append(
            f"{made.path}: pixels differ by {made.levels:.2g} of 255 from the training's, probabilities by"
            f" {made.difference:.2g} from eager's, on pictures of odd sizes"
        )
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
