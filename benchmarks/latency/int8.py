"""8 bits compared with float32 on this CPU: tables, whole networks, accuracy, and a search for each.

    python benchmarks/latency/int8.py tables --out OUT       # a table per backend and precision, with its errors
    python benchmarks/latency/int8.py networks --out OUT --networks FILE.json,TF-NAS-A,TF-NAS-CPU-B
    python benchmarks/latency/int8.py accuracy --out OUT --weights results/retrain/A/weights.pt,...
    python benchmarks/latency/int8.py searches --out OUT     # digits: for float32 and for int8, all trained
    python benchmarks/latency/int8.py summary --out OUT      # Markdown tables of what is in OUT

One thread, batch 1. Let nothing else run. Each may be killed and started again: `tables` keeps its visits and finished
tables, `networks` its rounds, `accuracy` its networks, and `searches` resumes as Snakemake does.

`searches` looks for a network for float32, then for two in int8, by the tables: one that takes as long in int8 as that
network does (target A), and one that would take as long in float32 (B); B also in the space without squeeze-and-
excitation. All are trained, as are --networks, and timed in both precisions: whether a search for int8 is worth it.

A smoke run: tables --space tf-nas-tiny --minutes 0.2 --validation-networks 4, networks --resolution 32 --rounds 2.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import yaml
from measured import common_options, full_table, markdown, medians, profile_params, ratio, read_rounds, time_in_rounds

from tfnas.cli.init.presets import load_preset
from tfnas.cli.zoo import read_network
from tfnas.deploy.export import EXPORTS
from tfnas.deploy.load import load_network, read_origin
from tfnas.deploy.quantization import calibration_inputs, read_image_sets, top1_percent, write_int8
from tfnas.jobs.artifacts import read_json, write_json
from tfnas.latency import LatencyTable
from tfnas.latency.backends import BackendOptions, open_backend
from tfnas.latency.measuring import network_probe
from tfnas.latency.timing import build, measuring
from tfnas.space import Architecture, load_space

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = ("float32", "int8")
BACKENDS = "onnx-runtime,openvino"
NETWORKS = "TF-NAS-A,TF-NAS-A-wose"
SPACES = {"int8": "tf-nas", "int8_wose": "tf-nas-wose"}  # by folder
IN_BOTH = read_network("TF-NAS-A-wose")
DIGITS = {"resolution": 32, "num_classes": 10, "backends": "onnx-runtime"}  # as preset `digits`


def main() -> None:
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    steps = {"tables": make_tables, "networks": time_networks, "accuracy": compare_accuracy, "searches": search_all}
    if options.what in steps:
        steps[options.what](options)
    print("\n".join(summary(options.out)))


def parse_options() -> argparse.Namespace:
    steps = ("tables", "networks", "accuracy", "searches", "summary")
    parser = common_options(__doc__, steps, backends=BACKENDS, networks=NETWORKS)
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--weights", default="", help="files weights.pt with their provenance")
    parser.add_argument("--calibration-images", type=int, default=256)
    parser.add_argument("--relative", type=float, default=0.3, help="place of the target of `searches`")
    return parser.parse_args()


def make_tables(options: argparse.Namespace, prefix: str = "") -> None:
    """A folder per backend and precision with its table and whole networks beside it; those that are there stay."""
    asked = {"minutes": options.minutes, "validation_networks": options.validation_networks, "on_busy": "warn"}
    for backend in options.backends.split(","):
        for precision in PRECISIONS:
            params = profile_params(backend, precision=precision, num_classes=options.num_classes, **asked)
            folder = options.out / f"{prefix}{backend}_{precision}"
            full_table(load_space(options.space), params, folder, resolution=options.resolution, seed=options.seed)


def time_networks(options: argparse.Namespace) -> None:
    """Every network in both precisions by every backend, in rounds of networks.jsonl."""
    runs, size = {}, options.resolution or 224
    with measuring(1):
        for backend in options.backends.split(","):
            for precision in PRECISIONS:
                opened = open_backend(backend, BackendOptions(precision=precision))
                for name in options.networks.split(","):
                    probe = network_probe(read_network(name), size, options.num_classes, 1)
                    runs[f"{backend}|{precision}|{name}"] = opened.prepare(*build(probe, torch.device("cpu")))
        time_in_rounds(runs, options.out / "networks.jsonl", options.rounds, size)


def compare_accuracy(options: argparse.Namespace) -> None:
    """Top-1 before and after, by both backends, of weights that know their images; refuses nothing."""
    path = options.out / "accuracy.json"
    found = read_json(path) if path.is_file() else {}
    for weights in filter(None, options.weights.split(",")):
        if weights in found:
            continue
        origin = read_origin(weights)
        architecture = origin.input_named("architecture.json")
        assert architecture is not None, f"{weights}: no provenance.json beside it names a network"
        network = load_network(architecture, weights)
        size = options.resolution or origin.resolution
        sets = read_image_sets(origin, network, size, data=None)
        row = {"images": len(sets.val), "float32": top1_percent(network, sets.val)}
        inputs = calibration_inputs(sets.train, options.calibration_images)
        for backend in options.backends.split(","):
            suffix = {"onnx-runtime": "onnx", "openvino": "xml"}[backend]
            write, load = EXPORTS[suffix]
            exported = options.out / f"accuracy.{suffix}"
            write(network, size, exported)
            row[backend] = top1_percent(load(write_int8(network, exported, inputs), threads=1), sets.val)
        write_json(path, found := found | {weights: row})


def search_all(options: argparse.Namespace) -> None:
    """Search for float32 latency, then for int8 latency with the found network's latencies; train known ones."""
    vars(options).update(DIGITS)
    for folder, space in SPACES.items():
        options.space = space
        make_tables(options, prefix=f"{folder}_")
    tables = {precision: LatencyTable.load(_table(options, "int8", precision)) for precision in PRECISIONS}
    known = options.networks.split(",")
    given = {f"K{number}": {"architecture": name} for number, name in enumerate(known)}
    trained = _trained(options, "known", _table(options, "int8", "float32"), given, epochs=0)
    relative = {"A": {"relative": options.relative}}
    [first] = _trained(options, "float32", _table(options, "int8", "float32"), relative)
    first_ms = {precision: table.latency_ms(_network(first)) for precision, table in tables.items()}
    int8, wose = (_table(options, folder, "int8") for folder in SPACES)
    targets = {"A": {"latency_ms": first_ms["int8"]}}
    [same_int8] = _trained(options, "int8", int8, targets)
    share = first_ms["float32"] / tables["float32"].latency_ms(_network(same_int8))
    targets["B"] = {"latency_ms": first_ms["int8"] * share}
    found = [first, *_trained(options, "int8", int8, targets)]
    share = LatencyTable.load(wose).latency_ms(IN_BOTH) / tables["float32"].latency_ms(IN_BOTH)
    targets = {"B": {"latency_ms": first_ms["float32"] * share}}  # A can be out of the space's reach
    found += _trained(options, "int8_wose", wose, targets, space=SPACES["int8_wose"])
    options.networks = ",".join([*(str(_network_file(weights)) for weights in found), *known])
    options.weights = ",".join(map(str, [*found, *trained]))
    options.out = options.out / "searches"
    time_networks(options)
    compare_accuracy(options)


def _table(options: argparse.Namespace, folder: str, precision: str) -> Path:
    found: Path = options.out / f"{folder}_onnx-runtime_{precision}" / "latency_table.json"
    return found


def _trained(
    options: argparse.Namespace,
    name: str,
    table: Path,
    targets: Mapping[str, Mapping[str, object]],
    epochs: int | None = None,
    space: str = "tf-nas",
) -> list[Path]:
    """Weights that the pipeline leaves in a folder of its own for each target, with a table measured before."""
    folder, params = options.out / "searches" / name, yaml.safe_load(load_preset("digits").render())
    copy = folder / "inputs" / "tables" / "table.json"
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not copy.exists():  # a newer file would start everything again
        copy.write_bytes(table.read_bytes())
    precision = LatencyTable.load(table).details["precision"]
    measured = {"backend": "onnx-runtime", "precision": precision, "batch_size": 1}
    params["profile_latency"] |= measured | {"table": str(copy.relative_to(folder))}
    params["space"] = space
    params["targets"] = {target: {"constraint": constraint, "dropout": 0.2} for target, constraint in targets.items()}
    params["baselines"]["targets"] = params["transfer"]["targets"] = []
    if epochs is not None:
        params["search"]["epochs"] = epochs
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    made = [f"results/retrain/{target}/weights.pt" for target in targets]
    run = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "all", *made]
    subprocess.run(run, check=True, cwd=ROOT)
    return [(folder / path).resolve() for path in made]


def _network_file(weights: Path) -> Path:
    return weights.parents[2] / "derive" / weights.parent.name / "architecture.json"


def _network(weights: Path) -> Architecture:
    return read_network(str(_network_file(weights)))


def summary(folder: Path) -> Iterator[str]:
    """Markdown tables of all that is in the folder, then of its searches."""
    metrics = {path.parent.name: read_json(path) for path in sorted(folder.glob("*/metrics.json"))}
    if metrics:
        names = ("mean_absolute_percentage_error", "spearman", "within_5_percent", "within_10_percent", "knots")
        rows = [(name, *(f"{found.get(key, float('nan')):.3f}" for key in names)) for name, found in metrics.items()]
        yield from markdown(("table", *names), rows)
    rounds = read_rounds(folder / "networks.jsonl")
    if rounds:
        yield from markdown(("backend", "network", "float32, ms", "int8, ms", "int8 / float32"), list(_ratios(rounds)))
    if (folder / "accuracy.json").is_file():
        for weights, row in read_json(folder / "accuracy.json").items():
            yield f"{weights}: {row}"
    if (folder / "searches").is_dir():
        yield from ("", "Found and known networks:", *summary(folder / "searches"))


def _ratios(rounds: Sequence[dict[str, float]]) -> Iterator[tuple[str, ...]]:
    ms = medians(rounds)
    for key in (key for key in ms if "|float32|" in key):
        backend, _, name = key.split("|")
        other = f"{backend}|int8|{name}"
        yield backend, name, f"{ms[key]:.3f}", f"{ms[other]:.3f}", ratio(rounds, other, to=key)


if __name__ == "__main__":
    main()
