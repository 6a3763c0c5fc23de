"""`tfnas export`: a trained network for use elsewhere, checked, timed, and described."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.cli._options import OutputFolder, check_numbers
from tfnas.cli.evaluate import add_network_arguments, choose_architecture, names_a_network
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from tfnas.deploy.model_card import Card
    from tfnas.deploy.origin import Origin
    from tfnas.space import Architecture

HELP = (
    "Write a trained network as ONNX and as a torch.export program, run both beside eager, time them, and write a"
    " model card."
)
FORMATS = ("onnx", "pt2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help="a weights.pt, or a .pth.tar of the authors; or, to try a runtime with random weights, a name of"
        " `tfnas zoo list` or an architecture.json",
    )
    parser.add_argument("--out", type=OutputFolder, required=True, metavar="DIR", help="folder to write into")
    add_network_arguments(parser)
    parser.add_argument(
        "--formats", default=",".join(FORMATS), metavar="LIST", help="of onnx and pt2 (default: both, onnx,pt2)"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, metavar="X", help="largest difference of a logit (default: 1e-4)"
    )
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="latency table (default: the one that the architecture came from)"
    )
    parser.add_argument("--batch-size", type=int, metavar="B", help="to time (default: the table's; else 1)")
    parser.add_argument(
        "--repeats", type=int, default=20, metavar="R", help="timed runs in each of 5 rounds (default: 20)"
    )


def run(options: argparse.Namespace) -> None:
    check_numbers(options, "export", dict.fromkeys(("resolution", "threads", "batch_size", "repeats"), 1))
    if not options.tolerance >= 0:
        raise UserError(f"export: --tolerance {options.tolerance}: must be 0 or more")
    formats = list(dict.fromkeys(options.formats.split(",")))
    unknown = next((name for name in formats if name not in FORMATS), None)
    if unknown is not None:
        raise UserError(f"export: --formats {unknown!r}: unknown format; known: {', '.join(FORMATS)}")
    from tfnas.deploy.model_card import write_card

    card = export(options, formats)
    write_card(card, options.out)
    print(summary(card, options.out))


def export(options: argparse.Namespace, formats: list[str]) -> Card:
    """Write and check the files, time them, and gather what the card says.

    Raises:
        UserError: a file cannot be read, or an export is not the network.
    """
    from tfnas.compute.devices import device_name
    from tfnas.deploy.export import export_checked
    from tfnas.deploy.model_card import Card, measure, read_latency_target
    from tfnas.deploy.origin import read_trained_on
    from tfnas.jobs.artifacts import digest_file, read_json

    trained = read_trained(options)
    architecture, file, network, origin = trained or fresh_network(options.weights)
    latency_target = read_latency_target(architecture, file, options.table)
    resolution = options.resolution or origin.resolution or 224
    threads = options.threads or origin.value("device.threads", 1)
    batch_size = options.batch_size or (latency_target.batch_size if latency_target else 1)
    paths = [options.out / f"{architecture.name}.{suffix}" for suffix in formats]
    checked = {
        path.name: export_checked(network, resolution, path, threads=threads, tolerance=options.tolerance)
        for path in paths
    }
    runners = {"torch eager": network, **{RUNTIMES[Path(name).suffix]: runner for name, runner in checked.items()}}
    measured = measure(runners, resolution, batch_size=batch_size, threads=threads, repeats=options.repeats)
    metrics = options.weights.with_name("metrics.json")
    return Card(
        architecture=architecture,
        resolution=resolution,
        num_classes=network.get_submodule("classifier.linear").out_features,
        metrics=read_json(metrics) if origin.fields and metrics.is_file() else {},
        origin=origin,
        trained_on=read_trained_on(origin),
        latency_target=latency_target,
        device=device_name("cpu"),
        batch_size=batch_size,
        threads=threads,
        measured=measured.timings,
        busy=measured.busy,
        differences={name: runner.difference for name, runner in checked.items()},
        digests={path.name: digest_file(path) for path in paths},
        random_weights=trained is None,
    )


def read_trained(options: argparse.Namespace) -> tuple[Architecture, Path | None, nn.Module, Origin] | None:
    """The architecture with its file, the network, and where it comes from; None where only a network is named.

    Raises:
        UserError: a file cannot be read, or the two do not belong together.
    """
    from tfnas.cli.zoo import read_network
    from tfnas.deploy.load import load_network
    from tfnas.deploy.origin import read_origin

    if options.architecture is None and names_a_network(options.weights):
        return None
    origin = read_origin(options.weights)
    name = choose_architecture(options, origin)
    architecture = read_network(name)
    return (
        architecture,
        Path(name) if Path(name).is_file() else None,
        load_network(architecture, options.weights),
        origin,
    )


def fresh_network(name: Path) -> tuple[Architecture, Path | None, nn.Module, Origin]:
    """The same of a network that is named alone: with random weights, always the same ones."""
    import torch

    from tfnas.cli.zoo import read_network
    from tfnas.deploy.origin import Origin
    from tfnas.space import build_network

    architecture = read_network(str(name))
    torch.manual_seed(0)
    return architecture, name if name.is_file() else None, build_network(architecture).eval(), Origin({})


RUNTIMES = {".onnx": "ONNX Runtime", ".pt2": "torch.export"}


def summary(card: Card, folder: Path) -> str:
    """What was written, how close it is, and how fast."""
    lines = ["The weights are random: this is for trying a runtime, it classifies nothing."] * card.random_weights
    lines += [
        f"{folder / name}: largest difference to eager {difference:.2g}, batches 1 and 7"
        for name, difference in card.differences.items()
    ]
    latency_target = card.latency_target
    if latency_target is not None:
        target = "" if latency_target.target_ms is None else f"target {latency_target.target_ms:.3f} ms, "
        lines.append(f"{target}table {latency_target.table_ms:.3f} ms ({latency_target.device}, {latency_target.how})")
    times = ", ".join(f"{name} {timing.median_ms:.3f} ms" for name, timing in card.measured.items())
    lines.append(f"{times} ({card.device}, batch {card.batch_size}, threads {card.threads})")
    if card.busy:
        lines.append("warning: other programs ran beside the measurements: these latencies are too long")
    lines.append(f"{folder / 'MODEL_CARD.md'}: says the same, and where the network comes from")
    return "\n".join(lines)
