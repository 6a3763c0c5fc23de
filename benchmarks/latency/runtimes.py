"""Runtimes compared on this CPU: what a table costs and how good it is, and the same networks ranked by each runtime.

    python benchmarks/latency/runtimes.py cost --out OUT       # CPU seconds of a block's conversion and loading
    python benchmarks/latency/runtimes.py tables --out OUT     # a table per runtime, judged on whole networks
    python benchmarks/latency/runtimes.py networks --out OUT   # published networks by all runtimes, in one run
    python benchmarks/latency/runtimes.py summary --out OUT    # Markdown tables and ranks.svg of what is in OUT

One thread, batch 1, float32, Table 1 at 224 x 224. Let nothing else run, except for `cost`, which counts CPU time. Each
may be killed and started again: `tables` keeps its visits and finished tables, `networks` its rounds, and converted
files are in ~/.cache/tfnas/converted: of a table by executorch or litert, half an hour's on two cores.

A smoke run: tables --space tf-nas-tiny --minutes 0.2 --validation-networks 8, networks --resolution 32 --rounds 2.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from measured import common_options, full_table, markdown, medians, profile_params, ratio, read_rounds, time_in_rounds
from scipy.stats import spearmanr

from tfnas.jobs.artifacts import read_json, write_json
from tfnas.latency import LatencyTable
from tfnas.latency.backends import Backend, BackendOptions, open_backend
from tfnas.latency.backends.kept import Keeping
from tfnas.latency.baselines import paper_baselines
from tfnas.latency.conversion import convert_ahead
from tfnas.latency.measuring import block_probe, network_probe
from tfnas.latency.profiler import operation_ranges
from tfnas.latency.timing import build, measuring
from tfnas.latency.tours import first_knots
from tfnas.space import load_space, zoo

RUNTIMES = "torch-eager,onnx-runtime,openvino,executorch,litert,ncnn"
RATIOS = ("TF-NAS-A", "TF-NAS-D", "TF-NAS-CPU-B")
ERRORS = ("mean_absolute_percentage_error", "within_5_percent", "within_10_percent", "spearman")


def main() -> None:
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    steps = {"cost": measure_cost, "tables": make_tables, "networks": time_networks}
    if options.what in steps:
        steps[options.what](options)
    print("\n".join(summary(options.out)))


def parse_options() -> argparse.Namespace:
    steps = ("cost", "tables", "networks", "summary")
    parser = common_options(__doc__, steps, backends=RUNTIMES, networks=",".join(zoo.names()))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--blocks", type=int, default=4, help="of `cost`")
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
        write_json(
            options.out / "cost.json", {"space": space.name, "operations": len(ranges), "points": points} | costs
        )


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
    """A folder per runtime with its table and whole networks beside it; those that are there stay."""
    asked = {"minutes": options.minutes, "validation_networks": options.validation_networks, "on_busy": "warn"}
    for name in options.backends.split(","):
        params, folder = profile_params(name, **asked), options.out / name
        full_table(load_space(options.space), params, folder, resolution=options.resolution, seed=options.seed)


def time_networks(options: argparse.Namespace) -> None:
    """Every network by every runtime, in rounds of networks.jsonl."""
    runs, size = {}, options.resolution or 224
    with measuring(1):
        probes = {network: network_probe(zoo.load(network), size, 1000, 1) for network in options.networks.split(",")}
        for name, backend in opened(options).items():
            if isinstance(backend, Keeping) and backend.keeps:
                convert_ahead(name, BackendOptions(), list(probes.values()))
            for network, probe in probes.items():
                runs[f"{name}|{network}"] = run = backend.prepare(*build(probe, torch.device("cpu")))
                run()
            print(name, "prepared", flush=True)
        time_in_rounds(runs, options.out / "networks.jsonl", options.rounds, size)


def summary(folder: Path) -> Iterator[str]:
    """Markdown tables of all that is in the folder; writes ranks.svg where there are rounds."""
    tables = [path.parent for path in sorted(folder.glob("*/latency_table.json"))]
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
        yield from markdown(head, [row for found in tables for row in _table_rows(found)])
    rounds = read_rounds(folder / "networks.jsonl")
    if rounds:
        ms = _by_runtime(rounds)
        yield from markdown(("network", *ms, "fastest"), list(_ratio_rows(rounds)))
        yield from markdown(("ranks agree (Spearman)", *ms), list(_agreement_rows(ms)))
        yield from markdown(("runtime", "fastest for their top-1 (paper)"), list(_frontier_rows(ms)))
        _draw_ranks(ms, folder / "ranks.svg")


def _table_rows(folder: Path) -> Iterator[tuple[object, ...]]:
    """Errors on random and on published networks, by a table that has not seen them."""
    details, metrics = LatencyTable.load(folder / "latency_table.json").details, read_json(folder / "metrics.json")
    for prefix, what in (("", "random"), ("published_", "published")):
        errors = [metrics.get(prefix + name) for name in ERRORS]
        if None not in errors:
            mean, *shares, rank = errors
            start = (details["backend"], details["backend_version"], f"{metrics['seconds']:.0f}", metrics["knots"])
            yield *start, what, f"{mean:.2f}", *(f"{share:.0f} %" for share in shares), f"{rank:.4f}"


def _by_runtime(rounds: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, by runtime and network."""
    found: dict[str, dict[str, float]] = {}
    for key, ms in medians(rounds).items():
        runtime, network = key.split("|")
        found.setdefault(runtime, {})[network] = ms
    return found


def _ratio_rows(rounds: Sequence[dict[str, float]]) -> Iterator[tuple[str, ...]]:
    """Latency by the first runtime in ms, and by the others relative to it."""
    by_runtime = _by_runtime(rounds)
    first, *others = by_runtime
    for network in (name for name in RATIOS if name in by_runtime[first]):
        ms = {name: networks[network] for name, networks in by_runtime.items()}
        cells = (ratio(rounds, f"{other}|{network}", to=f"{first}|{network}") for other in others)
        yield network, f"{ms[first]:.3f} ms", *cells, min(ms, key=ms.__getitem__)


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


def _draw_ranks(ms: dict[str, dict[str, float]], path: Path) -> None:
    """A line per network: its place by latency in each runtime, the fastest at the top."""
    from matplotlib import colormaps

    from tfnas.report.figures.style import new_figure, write_figure

    names = list(next(iter(ms.values())))
    places = {b: {n: sorted(by.values()).index(by[n]) + 1 for n in names} for b, by in ms.items()}

    def figure():
        drawn = new_figure(1.2 + 0.3 * len(names), 8.8)
        axes = drawn.subplots()
        for name, color in zip(names, cycle(colormaps["tab20"].colors), strict=False):
            axes.plot(range(len(ms)), [places[b][name] for b in ms], marker="o", color=color)
            last = (len(ms) - 1, places[list(ms)[-1]][name])
            axes.annotate(name, last, xytext=(8, -3), textcoords="offset points", color=color)
        axes.set_xticks(range(len(ms)), list(ms))
        axes.set_xlim(-0.2, len(ms) - 0.9)
        axes.spines[["top", "right"]].set_visible(False)
        drawn.subplots_adjust(right=0.8)
        axes.set_yticks(range(1, len(names) + 1))
        axes.invert_yaxis()
        axes.set_ylabel("place by latency")
        return drawn

    write_figure(figure, path)


if __name__ == "__main__":
    main()
