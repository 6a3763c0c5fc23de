"""Runtimes compared on this CPU: what a table costs and how good it is, and the same networks ranked by each runtime.

    python benchmarks/runtimes.py cost --out OUT                   # CPU seconds of a block's conversion and loading
    python benchmarks/runtimes.py tables --out OUT --minutes 5     # a table per runtime, judged on whole networks
    python benchmarks/runtimes.py networks --out OUT               # published networks by all runtimes, in one run
    python benchmarks/runtimes.py summary --out OUT                # Markdown tables and ranks.svg of what is in OUT

One thread, batch 1, float32, Table 1 at 224 x 224. Let nothing else run, except for `cost`, which counts CPU time. Each
may be killed and started again: `tables` keeps its visits and finished tables, `networks` its rounds, and converted
files are in ~/.cache/tfnas/converted. A table by executorch or litert needs an hour of conversions first; `--minutes`
counts them, so give it more or run it twice.

A smoke run: tables --space tf-nas-tiny --minutes 0.2 --validation-networks 8, networks --resolution 32 --rounds 2.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from tfnas.compute.devices import device_name, time_sequence
from tfnas.latency import LatencyTable
from tfnas.latency.backends import Backend, BackendOptions, open_backend
from tfnas.latency.baselines import paper_baselines
from tfnas.latency.measuring import Measuring, block_probe, network_probe
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.profiler import operation_ranges
from tfnas.latency.timing import build, measuring
from tfnas.latency.tours import first_knots
from tfnas.latency.validation import write_validation
from tfnas.space import load_space, zoo
from tfnas.stages.profile_latency import profile

RUNTIMES = "torch-eager,onnx-runtime,openvino,executorch,litert,ncnn"
RATIOS = ("TF-NAS-A", "TF-NAS-D", "TF-NAS-CPU-B")
WARMUP_RUNS, REPEATS = 2, 10  # per network and round
MEASURED = {  # as `tfnas profile` does by default, except that a busy machine only warns
    "table": None,
    "device": "cpu",
    "precision": "float32",
    "channels_last": False,
    "threads": 1,
    "batch_size": 1,
    "num_classes": 1000,
    "tolerance": 0.01,
    "warmup_runs": 2,
    "repeats": 8,
    "calibrated": True,
    "on_busy": "warn",
}


def main() -> None:
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    {"cost": measure_cost, "tables": make_tables, "networks": time_rounds, "summary": lambda options: None}[
        options.what
    ](options)
    print("\n".join(summary(options.out)))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "tables", "networks", "summary"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backends", default=RUNTIMES, help=f"default: {RUNTIMES}")
    parser.add_argument("--space", default="tf-nas")
    parser.add_argument("--resolution", type=int, help="default: the space's; of networks, 224")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--validation-networks", type=int, default=32)
    parser.add_argument("--networks", default=",".join(zoo.names()))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=4, help="of `cost`")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def opened(options: argparse.Namespace) -> dict[str, Backend]:
    return {name: open_backend(name, BackendOptions()) for name in options.backends.split(",")}


def measure_cost(options: argparse.Namespace) -> None:
    """CPU seconds of `prepare` for random blocks: the first time, and when the converted file is there."""
    space = load_space(options.space)
    ranges = operation_ranges(space, options.resolution or space.resolution)
    points = {n: sum(len(first_knots(*r, key.in_channels, n)) for key, r in ranges.items()) for n in (1, 4)}
    random, keys = np.random.default_rng(options.seed), list(ranges)
    chosen = [keys[i] for i in random.permutation(len(keys))[: options.blocks]]
    probes = [block_probe(key, int(random.integers(ranges[key][0], ranges[key][1] + 1)), 1) for key in chosen]
    costs = {}
    for name, backend in opened(options).items():
        warm = block_probe(chosen[0], ranges[chosen[0]][0], 1)  # imports, and a core that is made once
        with measuring(1):
            backend.prepare(*build(warm, torch.device("cpu")))()
            seconds = [[_cpu_seconds(backend, probe) for _ in range(2)] for probe in probes]
        first_s, again_s = np.mean(seconds, 0).tolist()
        costs[name] = {"first_s": first_s, "again_s": again_s}
        print(name, costs[name], flush=True)
        _write(options.out / "cost.json", {"space": space.name, "operations": len(ranges), "points": points} | costs)


def _cpu_seconds(backend: Backend, probe: object) -> float:
    """Of conversion, loading and the first run, in this process and in its children."""
    module, example = build(probe, torch.device("cpu"))
    before = _used()
    backend.prepare(module, example)()
    return _used() - before


def _used() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def make_tables(options: argparse.Namespace) -> None:
    """A latency table and its validation.csv per runtime; those that are there stay."""
    space = load_space(options.space)
    for name, backend in opened(options).items():
        path = options.out / f"{name}.json"
        if path.is_file():
            continue
        asked = {"minutes": options.minutes, "validation_networks": options.validation_networks}
        params = ProfileLatencyParams.model_validate({**MEASURED, "backend": name, **asked})
        profiled = Measuring(
            params,
            space=space.digest,
            resolution=options.resolution or space.resolution,
            backend=backend,
            journal=options.out / f"{name}.partial",
        )
        table, rows = profile(space, profiled, seed=options.seed)
        write_validation(rows, options.out / f"{name}_validation.csv")
        table.save(path)
        profiled.discard()


def time_rounds(options: argparse.Namespace) -> None:
    """Each round times every network by every runtime, in random order, and is a line of networks.jsonl."""
    path, size = options.out / "networks.jsonl", options.resolution or 224
    runs, names = {}, options.networks.split(",")
    with measuring(1):
        for backend_name, backend in opened(options).items():
            for network in names:
                probe = network_probe(zoo.load(network), size, 1000, 1)
                runs[backend_name, network] = backend.prepare(*build(probe, torch.device("cpu")))
                runs[backend_name, network]()
            print(backend_name, "prepared", flush=True)
        done = len(path.read_text().splitlines()) if path.is_file() else 0
        for number in range(done, options.rounds):
            line = {"resolution": size, "device": device_name("cpu"), "ms": _round(runs, options.seed + number)}
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _round(runs: dict[tuple[str, str], Callable[[], object]], seed: int) -> dict[str, dict[str, float]]:
    """The median of each network's runs, by runtime; CPU time where the system preempted a run."""
    pairs = list(runs)
    found: dict[str, dict[str, float]] = {backend: {} for backend, _ in pairs}
    for index in np.random.default_rng(seed).permutation(len(pairs)):
        backend, network = pairs[index]
        samples_ms = time_sequence(torch.device("cpu"), [runs[backend, network]], WARMUP_RUNS + REPEATS)
        found[backend][network] = float(np.median(samples_ms[WARMUP_RUNS:]))
    return found


def summary(folder: Path) -> Iterator[str]:
    """Markdown tables of all that is in the folder; writes ranks.svg where there are rounds."""
    tables = [LatencyTable.load(folder / f"{name}.json") for name in RUNTIMES.split(",") if _has(folder, name)]
    if tables:
        head = (
            "runtime",
            "version",
            "s",
            "knots",
            "networks",
            "mean error, %",
            "within 5 %",
            "within 10 %",
            "Spearman",
        )
        yield from _markdown(head, [row for table in tables for row in _table_rows(table, folder)])
    path = folder / "networks.jsonl"
    if path.is_file():
        rounds = [json.loads(line) for line in path.read_text().splitlines()]
        yield from _markdown(("network", *rounds[0]["ms"], "fastest"), list(_ratio_rows(rounds)))
        ms = _medians(rounds)
        yield from _markdown(("ranks agree (Spearman)", *ms), list(_agreement_rows(ms)))
        yield from _markdown(("runtime", "fastest for their top-1 (paper)"), list(_frontier_rows(ms)))
        _draw_ranks(ms, folder / "ranks.svg")


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.json").is_file()


def _table_rows(table: LatencyTable, folder: Path) -> Iterator[tuple[object, ...]]:
    """Errors on random and on published networks, by a table that has not seen them where the file says so."""
    name, details = table.details["backend"], table.details
    with (folder / f"{name}_validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    for published, what in ((False, "random"), (True, "published")):
        some = [row for row in rows if (row["network"] in zoo.names()) == published]
        if len(some) < 2:
            continue
        predicted = np.array([float(row.get("unseen_ms") or row["table_ms"]) for row in some])
        measured = np.array([float(row["measured_ms"]) for row in some])
        percent, rank = abs(100 * (predicted / measured - 1)), spearmanr(predicted, measured).statistic
        shares = [f"{100 * np.mean(percent <= limit):.0f} %" for limit in (5, 10)]
        knots = sum(len(curve.widths) for curve in table.curves.values())
        start = (name, details["backend_version"], f"{details.get('seconds', float('nan')):.0f}", knots)
        yield (*start, f"{len(some)} {what}", f"{percent.mean():.2f}", *shares, f"{rank:.4f}")


def _medians(rounds: Sequence[dict]) -> dict[str, dict[str, float]]:
    first = rounds[0]["ms"]
    return {b: {n: float(np.median([r["ms"][b][n] for r in rounds])) for n in first[b]} for b in first}


def _ratio_rows(rounds: Sequence[dict]) -> Iterator[tuple[str, ...]]:
    """Latency by the first runtime in ms, and of the others relative to it: median and quartiles over the rounds."""
    first, *others = rounds[0]["ms"]
    for network in (name for name in RATIOS if name in rounds[0]["ms"][first]):
        cells = [f"{_medians(rounds)[first][network]:.3f} ms"]
        for other in others:
            ratios = [r["ms"][other][network] / r["ms"][first][network] for r in rounds]
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
            cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        ms = {name: by[network] for name, by in _medians(rounds).items()}
        yield (network, *cells, min(ms, key=ms.__getitem__))


def _agreement_rows(ms: dict[str, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    for name, mine in ms.items():
        yield (
            name,
            *(f"{spearmanr(list(mine.values()), list(other.values())).statistic:.3f}" for other in ms.values()),
        )


def _frontier_rows(ms: dict[str, dict[str, float]]) -> Iterator[tuple[str, str]]:
    """Networks that no other of the list beats in both latency and the paper's accuracy."""
    top1 = {baseline.name: baseline.top1 for baseline in paper_baselines(224)}
    for name, mine in ms.items():
        known = [network for network in mine if network in top1]
        best = [a for a in known if not any(mine[b] < mine[a] and top1[b] >= top1[a] for b in known)]
        yield name, ", ".join(sorted(best, key=mine.__getitem__))


def _markdown(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield from ("", "| " + " | ".join(map(str, head)) + " |", "|" + "---|" * len(head))
    yield from ("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _draw_ranks(ms: dict[str, dict[str, float]], path: Path) -> None:
    """A line per network: its place by latency in each runtime, the fastest at the top."""
    from tfnas.report.figures.style import new_figure, write_figure

    names = list(next(iter(ms.values())))
    places = {b: {n: sorted(by.values()).index(by[n]) + 1 for n in names} for b, by in ms.items()}

    def figure():
        drawn = new_figure(1.2 + 0.3 * len(names), 8.8)
        axes = drawn.subplots()
        for name in names:
            axes.plot(range(len(ms)), [places[b][name] for b in ms], marker="o")
            axes.annotate(name, (len(ms) - 1, places[list(ms)[-1]][name]), xytext=(6, -3), textcoords="offset points")
        axes.set_xticks(range(len(ms)), list(ms))
        axes.set_xlim(-0.2, len(ms) - 0.2)
        axes.set_yticks(range(1, len(names) + 1))
        axes.invert_yaxis()
        axes.set_ylabel("place by latency")
        return drawn

    write_figure(figure, path)


def _write(path: Path, payload: object) -> None:
    path.write_text(json.dumps(payload, indent=1) + "\n")


if __name__ == "__main__":
    main()
