"""How far off is a table that was adapted by 5, 10 or 20 samples, next to one measured in full on the same device?

    python benchmarks/latency/adaptation.py run --out adaptation.jsonl      # tf-nas at 224, idle machine
    python benchmarks/latency/adaptation.py run --space tf-nas-tiny --minutes 0.3 --devices torch onnx --out tiny.jsonl
    python benchmarks/latency/adaptation.py show adaptation.jsonl
    python benchmarks/latency/adaptation.py between TABLE OTHER      # two full tables of a space; measures nothing

One machine has several "devices": PyTorch and ONNX Runtime, one and two threads. Each gets a full table, and 32 random
and the published networks measured whole in the same minutes, which are the truth. Then each source is adapted to each
target; the samples' networks are other random ones (another seed). The truth is minutes older, and the machine faster
or slower by now: each table is judged after the best one factor for all, the source as well. *As measured* is without
it. Killed, it resumes. The full tables, ten minutes each, stay in --work, where `ship_table.py measure` leaves and
looks for the same ones.

`between` adapts the first table by tours whose latencies come from the second, with 2 % noise (standard deviation), and
compares with the second.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measured import DEVICES, full_table, markdown, profile_params

from tfnas.latency import LatencyTable
from tfnas.latency.adaptation import ADAPTED_FROM, Observed, fit_factors, plan_samples
from tfnas.latency.measuring import Measuring
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.profiler import operation_ranges
from tfnas.latency.tours import tour_slots
from tfnas.latency.validation import (
    Validated,
    published_members,
    validated,
    validation_metrics,
    validation_networks,
)
from tfnas.space import Space, load_space
from tfnas.stages.profile_latency import adapt
from tfnas.tables.shipped import open_table

PAIRS = (("torch", "onnx"), ("onnx", "torch"), ("torch", "torch-2-threads"))
SAMPLES = (5, 10, 20)
COLUMNS = (
    *("from, to", "samples", "seconds", "error", "worst seed", "as measured", "it said"),
    *("within 5 %", "within 10 %", "Spearman"),
    *("full table", "source x one factor"),
)
SEEDS = (1, 2, 3)  # of the samples; 0 is that of the truth


def run(options: argparse.Namespace) -> None:
    space, work = load_space(options.space), options.work
    work.mkdir(parents=True, exist_ok=True)
    done = {_name(row) for row in read_rows(options.out)}
    tables = {
        device: full_table(space, _params(device, options), work / f"{space.name}-{device}")
        for device in options.devices
    }
    for source, target in (pair for pair in PAIRS if set(pair) <= set(options.devices)):
        for samples in SAMPLES:
            for seed in SEEDS:
                if (source, target, samples, seed) not in done:
                    row = adapted_row(tables, source, target, samples, seed, space, work, options)
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")


def adapted_row(
    tables: dict[str, tuple[LatencyTable, list[Validated]]],
    source: str,
    target: str,
    samples: int,
    seed: int,
    space: Space,
    work: Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """One adaptation, judged by the target's truth, next to the full table and the source times the best one factor."""
    journal = work / f"{source} to {target} {samples} {seed}.jsonl"
    measuring = Measuring(_params(target, options), space=space.digest, resolution=space.resolution, journal=journal)
    full, truth = tables[target]
    table, seen = adapt(tables[source][0], space, measuring, samples=samples, seed=seed)
    measuring.discard()
    networks = [*validation_networks(space, options.networks, 0), *published_members(space)]
    measured_ms = [row.measured_ms for row in truth]
    adapted, plain = (validated(each, networks, measured_ms) for each in (table, tables[source][0]))
    return {
        "source": source,
        "target": target,
        "samples": samples,
        "seed": seed,
        "space": space.name,
        "seconds": measuring.seconds,
        "cpu_share": measuring.cpu_share,
        "adapted": validation_metrics(at_best_factor(adapted)),
        "as_measured": validation_metrics(adapted),
        "full": validation_metrics(at_best_factor(truth)),
        "one_factor": validation_metrics(at_best_factor(plain)),
        "median_difference_percent": table_difference(table, full),
        "said": validation_metrics(seen),
        ADAPTED_FROM: table.details[ADAPTED_FROM],
    }


def at_best_factor(rows: list[Validated]) -> list[Validated]:
    """All of a table's latencies times the one factor that brings the median network to what it took."""
    factor = float(np.median([row.measured_ms / row.table_ms for row in rows]))
    return [row._replace(table_ms=factor * row.table_ms, unseen_ms=None) for row in rows]


def table_difference(table: LatencyTable, other: LatencyTable) -> float:
    """Median relative difference over all operations and widths, in percent."""
    differences = [abs(curve.dense_ms / other.curves[key].dense_ms - 1.0) for key, curve in table.curves.items()]
    return 100.0 * float(np.median(np.concatenate(differences)))


def _params(device: str, options: argparse.Namespace) -> ProfileLatencyParams:
    asked = {"minutes": options.minutes, "validation_networks": options.networks, "on_busy": options.on_busy}
    return profile_params(**DEVICES[device], **asked)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The finished rows; a truncated last line is none."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _name(row: dict[str, Any]) -> tuple[str, str, int, int]:
    return row["source"], row["target"], row["samples"], row["seed"]


def show(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A Markdown table: means over the seeds, on random networks that nothing was fitted to."""
    groups = [[row for row in rows if _name(row)[:3] == (*pair, samples)] for pair in PAIRS for samples in SAMPLES]
    yield from markdown(COLUMNS, [_cells(group) for group in groups if group])


def _cells(rows: list[dict[str, Any]]) -> tuple[object, ...]:
    """Of one pair and number of samples."""
    error = "mean_absolute_percentage_error"
    found = {key: [row["adapted"].get(key, np.nan) for row in rows] for key in rows[0]["adapted"]}
    source, target, samples, _ = _name(rows[0])
    return (
        *(f"{source}, {target}", samples, f"{np.mean([row['seconds'] for row in rows]):.0f}"),
        *(f"{np.mean(found[error]):.1f} %", f"{max(found[error]):.1f} %"),
        *(f"{np.mean([row[key][error] for row in rows]):.1f} %" for key in ("as_measured", "said")),
        *(f"{np.mean(found[key]):.0f} %" for key in ("within_5_percent", "within_10_percent")),
        f"{np.mean(found.get('spearman', [np.nan])):.3f}",
        *(f"{rows[0][key][error]:.1f} %" for key in ("full", "one_factor")),
    )


def between(source: LatencyTable, target: LatencyTable) -> Iterator[str]:
    """A Markdown table of mean errors over seeds, in percent: of operations (median) and of random networks (mean)."""
    space = load_space(source.space)
    slots, ranges = tour_slots(space, source.resolution, []), operation_ranges(space, source.resolution)
    networks = validation_networks(space, 32, 0)
    truth, plain = (np.array([table.latency_ms(network) for network in networks]) for table in (target, source))
    one_factor = abs(np.median(truth / plain) * plain / truth - 1).mean()
    rows = []
    for tours in (3, 5, 10):
        errors = []
        for seed in range(6):
            random = np.random.default_rng(seed)
            plan = itertools.islice(plan_samples(slots, ranges, 0, seed), tours)
            points = [
                Observed(key, width, float(target.operation_ms(key, width) * np.exp(random.normal(0, 0.02))), 1)
                for tour in plan
                for key, width in tour
            ]
            factors = fit_factors(source, points)
            curves = {key: factors.curve(key, curve) for key, curve in source.curves.items()}
            adapted = replace(source, curves=curves, base_ms=target.base_ms)
            found = np.array([adapted.latency_ms(network) for network in networks])
            errors.append((table_difference(adapted, target), 100 * abs(found / truth - 1).mean()))
        rows.append((tours, *(f"{error:.1f}" for error in np.mean(errors, 0)), f"{100 * one_factor:.1f}"))
    yield from markdown(("tours", "operations", "networks", "source times one factor, networks"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--work", type=Path, default=Path("out/shipped_tables"), help="of full tables")
    running.add_argument("--space", default="tf-nas")
    running.add_argument("--minutes", type=float, default=10.0, help="of each full table")
    running.add_argument("--networks", type=int, default=32)
    running.add_argument("--devices", choices=list(DEVICES), nargs="+", default=list(DEVICES))
    running.add_argument("--on-busy", choices=("warn", "refuse"), default="refuse")
    showing = commands.add_parser("show")
    showing.add_argument("rows", type=Path)
    replaying = commands.add_parser("between")
    replaying.add_argument("tables", nargs=2, help="files, or shipped tables")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    elif options.command == "show":
        print("\n".join(show(read_rows(options.rows))))
    else:
        print("\n".join(between(*map(open_table, options.tables))))


if __name__ == "__main__":
    main()
