"""`tfnas evaluate`: top-1 and top-5 accuracy of trained weights, overall and per class."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.cli._console import OutputFile, check_numbers, layout
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset

    from tfnas.deploy.evaluation import ClassRow
    from tfnas.deploy.load import Origin
    from tfnas.train.metrics import Metrics

HELP = (
    "Measure the top-1 and top-5 accuracy of trained weights, ours or the authors', on a folder of images, overall and"
    " per class."
)
COLUMNS = ("class", "images", "top-1 %", "most taken for")
SHOWN = 20  # classes; --per-class writes all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights.pt, or a .pth.tar of the authors")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="results/prepare_data, a CIFAR set, or a folder with val/<class>/* or <class>/*",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the paths in DIR/manifest.csv (default: DIR/images)"
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--batch-size", type=int, metavar="B", help="images per batch (default: as in training; else 64)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="data loading processes (default: 0)")
    parser.add_argument(
        "--exif",
        choices=("apply", "ignore"),
        help="whether to turn images as their EXIF tag says (default: as in training; else apply)",
    )
    parser.add_argument("--per-class", type=OutputFile, metavar="FILE", help="write the numbers of every class as CSV")
    parser.add_argument("--json", type=OutputFile, metavar="FILE", help="write the overall numbers as JSON")


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that `tfnas export` has too."""
    parser.add_argument(
        "--architecture",
        metavar="NETWORK",
        help="an architecture.json, or a name from `tfnas zoo list` (default: the one named in the provenance.json next"
        " to the weights)",
    )
    parser.add_argument(
        "--resolution", type=int, metavar="N", help="image height and width (default: as in training; else 224)"
    )
    parser.add_argument("--threads", type=int, metavar="T", help="CPU threads (default: as in training; else 1)")


def run(options: argparse.Namespace) -> None:
    check_numbers(options, "evaluate", {"resolution": 1, "threads": 1, "batch_size": 1, "workers": 0})
    import torch

    from tfnas.compute.devices import find_device, warn_of_threads
    from tfnas.data import make_loader
    from tfnas.deploy.evaluation import evaluate_by_class
    from tfnas.deploy.load import load_network, read_origin

    if names_a_network(options.weights):
        raise UserError(f"evaluate: {options.weights}: is a network without weights; pass trained ones, a weights.pt")
    device = find_device(options.device, source="evaluate: --device")
    origin = read_origin(options.weights)
    network = load_network(choose_architecture(options, origin), options.weights)
    threads = options.threads or origin.value("device.threads", 1)
    warn_of_threads(threads)
    torch.set_num_threads(threads)
    dataset, classes = read_images(options, origin, network)
    size = options.batch_size or origin.eval_batch_size or 64
    loader = make_loader(dataset, size, shuffle=False, seed=0, drop_last=False, workers=options.workers)
    precision = origin.value("device.precision", "float32")
    network = network.to(memory_format=torch.channels_last)
    metrics, rows = evaluate_by_class(network, loader, classes, device=device, precision=precision)
    _write(options, metrics, rows, len(dataset))


def read_images(options: argparse.Namespace, origin: Origin, network: nn.Module) -> tuple[Dataset[Any], list[str]]:
    """The images as the network was trained to see them, and the names of their classes.

    Raises:
        UserError: the folder cannot be read, or the network has another number of classes.
    """
    from tfnas.deploy.evaluation import read_image_set

    resolution = options.resolution or origin.resolution or 224
    dataset, classes = read_image_set(options.data, resolution, images=options.images, exif=options.exif or origin.exif)
    outputs = network.get_submodule("classifier.linear").out_features
    if outputs != len(classes):
        raise UserError(
            f"{options.weights}: tells {outputs} classes apart, {options.data} has {len(classes)}; pass the images"
            " that the network was trained for"
        )
    return dataset, classes


def _write(options: argparse.Namespace, metrics: Metrics, rows: Sequence[ClassRow], images: int) -> None:
    """Print the numbers, and write the files that were asked for."""
    from tfnas.deploy.evaluation import write_rows
    from tfnas.jobs.artifacts import write_json

    if options.per_class is not None:
        write_rows(rows, options.per_class)
    numbers = {"top1_percent": metrics.top1_percent, "top5_percent": metrics.top5_percent, "loss": metrics.loss}
    if options.json is not None:
        write_json(options.json, {**numbers, "images": images})
    print(summary(rows, numbers, images))


def names_a_network(weights: Path) -> bool:
    """Whether the weights given are just the name of a published network, or an architecture.json."""
    from tfnas.space import zoo

    return weights.suffix == ".json" or (str(weights) in zoo.names() and not weights.exists())


def choose_architecture(options: argparse.Namespace, origin: Origin) -> str:
    """The file or name of the architecture.

    Raises:
        UserError: it was not given, and nothing next to the weights names it.
    """
    if options.architecture is not None:
        return options.architecture
    if not options.weights.exists():
        raise UserError(f"{options.weights}: there is no such file, and no network of `tfnas zoo list` has this name")
    found = origin.input_named("architecture.json")
    if found is None:
        raise UserError(f"{options.weights}: no provenance.json beside it names a network; pass --architecture NETWORK")
    return str(found)


def summary(rows: Sequence[ClassRow], numbers: dict[str, float | None], images: int) -> str:
    """The classes, worst first, and the totals."""
    shown = sorted(rows, key=lambda row: (row.top1_percent is None, row.top1_percent))[:SHOWN]
    cells = [
        (row.name, str(row.images), "-" if row.top1_percent is None else f"{row.top1_percent:.2f}", row.most_taken_for)
        for row in shown
    ]
    more = [] if len(rows) <= SHOWN else [f"... and {len(rows) - SHOWN} better classes; --per-class FILE has all"]
    top5 = "" if numbers["top5_percent"] is None else f", top-5 {numbers['top5_percent']:.4f} %"
    totals = f"{images} images: top-1 {numbers['top1_percent']:.4f} %{top5}, cross-entropy {numbers['loss']:.4f}"
    return "\n".join([layout([COLUMNS, *cells], left={0, 3}), *more, "", totals])
