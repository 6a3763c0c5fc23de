"""`tfnas evaluate`: top-1, top-5 and the accuracy of each class."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.cli._options import OutputFile, check_numbers
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from tfnas.deploy.evaluation import ClassRow
    from tfnas.deploy.origin import Origin

HELP = "Measure top-1 and top-5 of trained weights, ours or the authors', on a folder of images; and of each class."
COLUMNS = ("class", "images", "top-1 %", "most taken for")
SHOWN = 20  # classes; --per-class writes all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="a weights.pt, or a .pth.tar of the authors")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="results/prepare_data, a CIFAR set, or a folder with val/<class>/* or <class>/*",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where the paths in DIR/manifest.csv lie, if elsewhere"
    )
    add_network_arguments(parser)
    parser.add_argument("--batch-size", type=int, metavar="B", help="(default: the training's own; else 64)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="data loading processes (default: 0)")
    parser.add_argument(
        "--exif",
        choices=("apply", "ignore"),
        help="turn image files as their EXIF tag says (default: the training's own; else apply)",
    )
    parser.add_argument("--per-class", type=OutputFile, metavar="FILE", help="write all classes' numbers as CSV")
    parser.add_argument("--json", type=OutputFile, metavar="FILE", help="write the numbers of all images as JSON")


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """What `tfnas export` asks of weights as well."""
    parser.add_argument(
        "--architecture",
        metavar="NETWORK",
        help="an architecture.json, or a name of `tfnas zoo list` (default: the one that provenance.json beside the"
        " weights names)",
    )
    parser.add_argument(
        "--resolution", type=int, metavar="N", help="height and width (default: the training's own; else 224)"
    )
    parser.add_argument("--threads", type=int, metavar="T", help="CPU threads (default: the training's own; else 1)")


def run(options: argparse.Namespace) -> None:
    check_numbers(options, "evaluate", {"resolution": 1, "threads": 1, "batch_size": 1, "workers": 0})
    import torch

    from tfnas.compute.devices import find_device, warn_of_threads
    from tfnas.data import make_loader
    from tfnas.deploy.evaluation import evaluate_by_class, read_image_set, write_rows
    from tfnas.deploy.load import load_network
    from tfnas.deploy.origin import read_origin
    from tfnas.jobs.artifacts import write_json

    if names_a_network(options.weights):
        raise UserError(f"evaluate: {options.weights}: is a network without weights; pass trained ones, a weights.pt")
    device = find_device(options.device, source="evaluate: --device")
    origin = read_origin(options.weights)
    network = load_network(choose_architecture(options, origin), options.weights)
    threads = options.threads or origin.value("device.threads", 1)
    warn_of_threads(threads)
    torch.set_num_threads(threads)
    dataset, classes = read_image_set(
        options.data,
        options.resolution or origin.resolution or 224,
        images=options.images,
        exif=options.exif or origin.exif,
    )
    outputs = network.get_submodule("classifier.linear").out_features
    if outputs != len(classes):
        raise UserError(
            f"{options.weights}: tells {outputs} classes apart, {options.data} has {len(classes)}; pass the images"
            " that the network was trained for"
        )
    size = options.batch_size or origin.eval_batch_size or 64
    loader = make_loader(dataset, size, shuffle=False, seed=0, drop_last=False, workers=options.workers)
    precision = origin.value("device.precision", "float32")
    metrics, rows = evaluate_by_class(
        network.to(memory_format=torch.channels_last), loader, classes, device=device, precision=precision
    )
    if options.per_class is not None:
        write_rows(rows, options.per_class)
    numbers = {"top1_percent": metrics.top1_percent, "top5_percent": metrics.top5_percent, "loss": metrics.loss}
    if options.json is not None:
        write_json(options.json, {**numbers, "images": len(dataset)})
    print(summary(rows, numbers, len(dataset)))


def names_a_network(weights: Path) -> bool:
    """Whether what was given as weights is a published network's name, or an architecture.json."""
    from tfnas.space import zoo

    return weights.suffix == ".json" or (str(weights) in zoo.names() and not weights.exists())


def choose_architecture(options: argparse.Namespace, origin: Origin) -> str:
    """The architecture's file or name.

    Raises:
        UserError: it is not given, and nothing beside the weights names it.
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
    """The totals, and the classes, worst first."""
    from tfnas.cli.zoo import layout

    shown = sorted(rows, key=lambda row: (row.top1_percent is None, row.top1_percent))[:SHOWN]
    cells = [
        (row.name, str(row.images), "-" if row.top1_percent is None else f"{row.top1_percent:.2f}", row.most_taken_for)
        for row in shown
    ]
    more = [] if len(rows) <= SHOWN else [f"... and {len(rows) - SHOWN} better classes; --per-class FILE has all"]
    top5 = "" if numbers["top5_percent"] is None else f", top-5 {numbers['top5_percent']:.4f} %"
    totals = f"{images} images: top-1 {numbers['top1_percent']:.4f} %{top5}, cross-entropy {numbers['loss']:.4f}"
    return "\n".join([layout([COLUMNS, *cells], left={0, 3}), *more, "", totals])
