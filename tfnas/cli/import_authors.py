"""`tfnas import`: convert files of the TF-NAS authors to ours."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.cli._console import OutputFile, check_numbers
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from tfnas.space import Architecture

NAME = "import"
HELP = (
    "Convert a file of the TF-NAS authors (github.com/AberHu/TF-NAS) to ours: latency-table, config, weights, supernet,"
    " image-list."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    _add_latency_table(kinds)
    _add_config(kinds)
    _add_weights(kinds)
    _add_supernet(kinds)
    _add_image_list(kinds)


def run(options: argparse.Namespace) -> None:
    options.import_file(options)


def _add_kind(
    kinds: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    *,
    file: str,
    out: str,
    import_file: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=text, description=text)
    parser.add_argument("file", type=Path, metavar="FILE", help=file)
    parser.add_argument("--out", type=OutputFile, required=True, metavar="FILE", help=out)
    parser.set_defaults(import_file=import_file)
    return parser


def _add_latency_table(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_kind(
        kinds,
        "latency-table",
        "Convert their lookup table of operation latencies to a latency_table.json, to search and scale with.",
        file="latency_gpu.pkl or latency_cpu.pkl; no code in it is run",
        out="file to write, e.g. latency_table.json",
        import_file=import_latency_table,
    )
    parser.add_argument("--space", default="tf-nas", help="search space of the table (default: tf-nas)")
    parser.add_argument(
        "--resolution", type=int, default=224, metavar="N", help="image size it was measured at (default: 224)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="batch size it was measured at (default: 1 for a *cpu* file, else 32)",
    )
    parser.add_argument(
        "--device", metavar="TEXT", help="device it was measured on (default: `authors'` and the file name)"
    )


def _add_config(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_kind(
        kinds,
        "config",
        "Convert their model.config of a derived network to an architecture.json.",
        file="model.config, as their parsing_model.py writes it",
        out="file to write, e.g. architecture.json",
        import_file=import_config,
    )
    parser.add_argument("--name", help="name of the architecture (default: the file name)")
    parser.add_argument("--space", metavar="NAME", help="search space of the architecture (default: inferred)")


def _add_weights(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_kind(
        kinds,
        "weights",
        "Convert their trained weights to a weights.pt for our network of the same architecture.",
        file="model_best.pth.tar or checkpoint.pth.tar of their training; no code in it is run",
        out="file to write, e.g. weights.pt",
        import_file=import_weights,
    )
    parser.add_argument(
        "--architecture",
        required=True,
        metavar="NETWORK",
        help="network of the weights: a name from `tfnas zoo list`, an architecture.json, or their model.config",
    )


def _add_supernet(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_kind(
        kinds,
        "supernet",
        "Write the network that their searched supernet prefers as an architecture.json.",
        file="searched_model_90.pth.tar of their search; no code in it is run",
        out="file to write, e.g. architecture.json",
        import_file=import_supernet,
    )
    parser.add_argument(
        "--space", default="tf-nas", metavar="NAME", help="search space of the supernet (default: tf-nas)"
    )
    parser.add_argument("--name", help="name of the architecture (default: the file name)")


def _add_image_list(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_kind(
        kinds,
        "image-list",
        "Convert their list of images to a train.csv or val.csv (path, class, label), as build_subset writes them.",
        file="ImageNet-100-effb0_train_cls_ratio0.8.txt, or another with lines like 'n01560419/x.JPEG 0'",
        out="file to write, e.g. train.csv",
        import_file=import_image_list,
    )
    parser.add_argument(
        "--prefix",
        default="train",
        metavar="FOLDER",
        help="folder to put before each path (default: train, ImageNet's training images in prepare_data.root)",
    )


def import_latency_table(options: argparse.Namespace) -> None:
    check_numbers(options, "import latency-table", {"resolution": 1, "batch_size": 1})
    from tfnas.authors import read_latency_table
    from tfnas.space import load_space

    space = load_space(options.space)
    table = read_latency_table(
        options.file,
        space=space.name,
        resolution=options.resolution,
        batch_size=options.batch_size,
        device=options.device,
    )
    table.check_fits(space, options.resolution, source=str(options.file))
    table.save(options.out)
    print(f"{options.out}: {len(table.curves)} operations and {table.base_ms:.3f} ms of fixed parts ({table.device})")


def import_config(options: argparse.Namespace) -> None:
    from tfnas.authors import read_config
    from tfnas.cli.zoo import totals

    architecture = read_config(options.file, name=options.name, space=options.space)
    architecture.save(options.out)
    print(f"{options.out}: {architecture.name} of space {architecture.space}, {totals(architecture, 224, 1000)}")


def import_weights(options: argparse.Namespace) -> None:
    from tfnas.authors import load_weights, read_authors_weights
    from tfnas.space import build_network
    from tfnas.train.weights import save_weights

    architecture = _read_architecture(options.architecture)
    classifier = read_authors_weights(options.file).get("classifier.linear.weight")
    if classifier is None:
        raise UserError(f"{options.file}: has no classifier.linear.weight; pass the weights of a trained network")
    network = load_weights(build_network(architecture, len(classifier)), options.file)
    save_weights(network, options.out)
    print(f"{options.out}: weights of {architecture.name} with {len(classifier)} classes")


def _read_architecture(name_or_file: str) -> Architecture:
    """A published network by name, an architecture.json, or the authors' model.config."""
    from tfnas.authors import read_config
    from tfnas.cli.zoo import read_network
    from tfnas.jobs.artifacts import read_json

    if Path(name_or_file).is_file() and "kind" not in read_json(name_or_file):
        return read_config(name_or_file)
    return read_network(name_or_file)


def import_supernet(options: argparse.Namespace) -> None:
    from tfnas.authors import read_searched_supernet
    from tfnas.cli.zoo import totals
    from tfnas.space import load_space

    architecture = read_searched_supernet(options.file, load_space(options.space), name=options.name)
    architecture.save(options.out)
    print(f"{options.out}: {architecture.name} of space {architecture.space}, {totals(architecture, 224, 1000)}")


def import_image_list(options: argparse.Namespace) -> None:
    from tfnas.authors import read_image_list, to_samples
    from tfnas.data.manifest import write_samples

    samples = to_samples(read_image_list(options.file), prefix=options.prefix, source=str(options.file))
    write_samples(samples, options.out)
    print(f"{options.out}: {len(samples)} images of {len({label for _, _, label in samples})} classes")
