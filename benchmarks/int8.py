"""8 bits compared with float32 on this CPU: tables, whole networks, accuracy, and a search for each.

    python benchmarks/int8.py tables --out OUT --minutes 10       # a table per backend and precision, with its errors
    python benchmarks/int8.py networks --out OUT --networks results/derive/A/architecture.json,TF-NAS-A,TF-NAS-CPU-B
    python benchmarks/int8.py accuracy --out OUT --weights results/retrain/A/weights.pt,...
    python benchmarks/int8.py searches --out OUT                  # digits: a search for float32, one for int8, trained
    python benchmarks/int8.py summary --out OUT                   # Markdown tables of what is in OUT

One thread, batch 1. Let nothing else run. Each may be killed and started again: `tables` keeps its visits and finished
tables, `networks` its rounds, `accuracy` its lines, and `searches` resumes as Snakemake does.

`searches` aims at what the network found for float32 takes in int8, by the table. Then it tells of both networks how
long they take in either precision and how accurate they are: whether a search for int8 is worth it, or not.

A smoke run: tables --space tf-nas-tiny --minutes 0.2 --validation-networks 4, networks --resolution 32 --rounds 2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from tfnas.cli.init.presets import load_preset
from tfnas.cli.zoo import read_network
from tfnas.compute.devices import device_name, time_sequence
from tfnas.deploy.load import load_network, read_origin
from tfnas.deploy.quantization import calibration_inputs, read_image_sets, top1_percent, write_int8
from tfnas.jobs.artifacts import read_json, write_json
from tfnas.latency import LatencyTable
from tfnas.latency.backends import BackendOptions, open_backend
from tfnas.latency.measuring import Measuring, network_probe
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.timing import build, measuring
from tfnas.latency.validation import write_validation
from tfnas.space import load_space
from tfnas.stages.profile_latency import profile, profile_metrics

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("float32", "int8")
BACKENDS = "onnx-runtime,openvino"
NETWORKS = "TF-NAS-A,TF-NAS-A-wose"
WARMUP_RUNS, REPEATS = 2, 10  # per network and round
MEASURED = {"table": None, "device": "cpu", "channels_last": False, "threads": 1, "batch_size": 1, "tolerance": 0.01}
MEASURED |= {"warmup_runs": 2, "repeats": 8, "calibrated": True, "on_busy": "warn"}
SEARCHED = {"space": "tf-nas", "resolution": 32, "num_classes": 10}  # of preset `digits`


def main() -> None:
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    steps = {"tables": make_tables, "networks": time_rounds, "accuracy": compare_accuracy, "searches": search_twice}
    if options.what in steps:
        steps[options.what](options)
    print("\n".join(summary(options.out)))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tables", "networks", "accuracy", "searches", "summary"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backends", default=BACKENDS, help=f"default: {BACKENDS}")
    parser.add_argument("--space", default="tf-nas")
    parser.add_argument("--resolution", type=int, help="default: the space's; of networks, 224")
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--validation-networks", type=int, default=32)
    parser.add_argument("--networks", default=NETWORKS, help="names of the zoo, or files")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--weights", default="", help="files weights.pt with their provenance")
    parser.add_argument("--calibration-images", type=int, default=256)
    parser.add_argument("--relative", type=float, default=0.3, help="place of the target of `searches`")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_tables(options: argparse.Namespace, prefix: str = "") -> None:
    """A latency table and its validation.csv per backend and precision; those that are there stay."""
    space = load_space(options.space)
    for backend in options.backends.split(","):
        for precision in PRECISIONS:
            path = options.out / f"{prefix}{backend}_{precision}.json"
            if path.is_file():
                continue
            asked = {"minutes": options.minutes, "validation_networks": options.validation_networks}
            asked |= {"backend": backend, "precision": precision, "num_classes": options.num_classes}
            measured = Measuring(
                ProfileLatencyParams.model_validate(MEASURED | asked),
                space=space.digest,
                resolution=options.resolution or space.resolution,
                journal=path.with_suffix(".partial"),
            )
            table, rows = profile(space, measured, seed=options.seed)
            write_validation(rows, path.with_suffix(".csv"))
            write_json(path.with_suffix(".metrics"), profile_metrics(table, space, rows))
            table.save(path)
            measured.discard()


def time_rounds(options: argparse.Namespace) -> None:
    """Each round times every network in both precisions by every backend, in random order: a line of networks.jsonl."""
    path, size, runs = options.out / "networks.jsonl", options.resolution or 224, {}
    with measuring(1):
        for backend in options.backends.split(","):
            for precision in PRECISIONS:
                opened = open_backend(backend, BackendOptions(precision=precision))
                for name in options.networks.split(","):
                    probe = network_probe(read_network(name), size, options.num_classes, 1)
                    runs[f"{backend}|{precision}|{name}"] = opened.prepare(*build(probe, torch.device("cpu")))
        done = len(path.read_text().splitlines()) if path.is_file() else 0
        for number in range(done, options.rounds):
            found = {}
            for key in np.random.default_rng(options.seed + number).permutation(list(runs)).tolist():
                samples_ms = time_sequence(torch.device("cpu"), [runs[key]], WARMUP_RUNS + REPEATS)
                found[key] = float(np.median(samples_ms[WARMUP_RUNS:]))
            with path.open("a") as file:
                file.write(json.dumps({"device": device_name("cpu"), "resolution": size, "ms": found}) + "\n")


def compare_accuracy(options: argparse.Namespace) -> None:
    """Top-1 before and after, by both backends, of weights that know their images; refuses nothing."""
    from tfnas.deploy.export import EXPORTS

    path = options.out / "accuracy.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for weights in filter(None, options.weights.split(",")):
        if weights in found:
            continue
        origin = read_origin(weights)
        network = load_network(origin.input_named("architecture.json"), weights)
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


def search_twice(options: argparse.Namespace) -> None:
    """Search and train for float32 latency, then for the int8 latency that the found network has."""
    vars(options).update(SEARCHED | {"backends": "onnx-runtime"})
    make_tables(options, prefix="digits_")
    found = {}
    target = f"{{relative: {options.relative}}}"
    for precision in PRECISIONS:
        found[precision] = _searched(options, precision, target)
        table = LatencyTable.load(options.out / "digits_onnx-runtime_int8.json")
        target = f"{{latency_ms: {table.latency_ms(read_network(str(found['float32'])))}}}"
    options.networks = ",".join(map(str, found.values()))
    options.out = options.out / "searches"
    time_rounds(options)
    options.weights = ",".join(str(path.parents[2] / "retrain" / "A" / "weights.pt") for path in found.values())
    compare_accuracy(options)


def _searched(options: argparse.Namespace, precision: str, constraint: str) -> Path:
    """The architecture that the pipeline finds and trains in a folder of its own, with a table measured before."""
    folder, preset = options.out / "searches" / precision, load_preset("digits")
    table = folder / "inputs" / "tables" / "table.json"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_bytes((options.out / f"digits_onnx-runtime_{precision}.json").read_bytes())
    values = {"backend": "onnx-runtime", "precision": precision, "table": str(table.relative_to(folder))}
    for key, value in {**values, "batch_size": "1"}.items():
        preset.replace(f"profile_latency.{key}", value)
    preset.replace("targets.A.constraint", constraint)
    (folder / "params.yaml").write_text(preset.render())
    made = "results/retrain/A/weights.pt"
    run = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "all", made]
    subprocess.run(run, check=True, cwd=ROOT)
    return (folder / "results" / "derive" / "A" / "architecture.json").resolve()


def summary(folder: Path) -> Iterator[str]:
    """Markdown tables of all that is in the folder, then of its searches."""
    metrics = {path.stem: read_json(path) for path in sorted(folder.glob("*.metrics"))}
    if metrics:
        names = ("mean_absolute_percentage_error", "spearman", "within_5_percent", "within_10_percent", "knots")
        rows = [(name, *(f"{found.get(key, float('nan')):.3f}" for key in names)) for name, found in metrics.items()]
        yield from _markdown(("table", *names), rows)
    if (folder / "networks.jsonl").is_file():
        rounds = [json.loads(line)["ms"] for line in (folder / "networks.jsonl").read_text().splitlines()]
        yield from _markdown(("backend", "network", "float32, ms", "int8, ms", "int8 / float32"), list(_ratios(rounds)))
    if (folder / "accuracy.json").is_file():
        for weights, row in json.loads((folder / "accuracy.json").read_text()).items():
            yield f"{weights}: {row}"
    if (folder / "searches").is_dir():
        yield from ("", "Found for float32, and for int8:", *summary(folder / "searches"))


def _ratios(rounds: Sequence[dict[str, float]]) -> Iterator[tuple[str, ...]]:
    """Medians over the rounds, and the median and quartiles of the ratio within a round."""
    for key in rounds[0]:
        backend, precision, name = key.split("|")
        if precision != "float32":
            continue
        other = f"{backend}|int8|{name}"
        low, middle, high = np.quantile([found[other] / found[key] for found in rounds], (0.25, 0.5, 0.75))
        ms = [f"{np.median([found[one] for found in rounds]):.3f}" for one in (key, other)]
        yield backend, name, *ms, f"{middle:.3f} ({low:.3f} to {high:.3f})"


def _markdown(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield from ("", "| " + " | ".join(map(str, head)) + " |", "|" + "---|" * len(head))
    yield from ("| " + " | ".join(map(str, row)) + " |" for row in rows)


if __name__ == "__main__":
    main()
