"""Networks of the same latency with widths at multiples and with any widths: how much larger the former are.

    tfnas profile --space tf-nas --backend onnx-runtime --minutes 10 --out table.json
    python benchmarks/latency/width_multiples.py table.json --multiple 4 --out benchmarks/results/width_multiples.csv

Each network is drawn at random and scaled twice to one latency by elasticity-scaling, within the space and within the
space at multiples, by the same table. Both are then measured end to end. Needs an idle machine.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from measured import profile_params

from tfnas.jobs.artifacts import atomic_path
from tfnas.latency import LatencyTable
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.validation import time_networks
from tfnas.search.constraint import latency_constraint
from tfnas.search.random_networks import random_network
from tfnas.search.scaling.elasticity_scaling import scale_widths
from tfnas.space import Architecture, Space, count_macs, load_space

COLUMNS = ("network", "target_ms", "multiple", "table_ms", "measured_ms", "macs")


def scaled(space: Space, table: LatencyTable, number: int, target_ms: float) -> Architecture:
    """The network of this number in a space, at the largest widths within the target."""
    drawn = random_network(space, f"{space.name}-{number}", number)
    constraint = latency_constraint(space, table, target_ms)
    return scale_widths(drawn.architecture, constraint, ranges=drawn.width_ranges(space)).architecture


def targets_ms(space: Space, table: LatencyTable, count: int) -> list[float]:
    """A target for each network: somewhere in the middle half of what its widths at multiples allow."""
    random, found = np.random.default_rng(0), []
    for number in range(count):
        slow, fast = (table.latency_ms(scaled(space, table, number, limit)) for limit in (np.inf, 0.0))
        found.append(float(fast + random.uniform(0.25, 0.75) * (slow - fast)))
    return found


def compare(table: LatencyTable, multiple: int, count: int) -> list[dict[str, object]]:
    """Two rows for each network."""
    base = table.space.partition("@")[0]
    spaces = {1: load_space(base), multiple: load_space(f"{base}@{multiple}")}
    networks = [
        (number, target_ms, step, scaled(space, table, number, target_ms))
        for number, target_ms in enumerate(targets_ms(spaces[multiple], table, count))
        for step, space in spaces.items()
    ]
    names = set(ProfileLatencyParams.model_fields) & set(table.details)
    params = profile_params(**{name: table.details[name] for name in names} | {"batch_size": table.batch_size})
    timings = time_networks(
        [network for *_, network in networks], params, resolution=table.resolution, repeats=50, seed=0
    )
    return [
        {
            "network": number,
            "target_ms": f"{target_ms:.6f}",
            "multiple": step,
            "table_ms": f"{table.latency_ms(network):.6f}",
            "measured_ms": f"{timing.median_ms:.6f}",
            "macs": count_macs(network, table.resolution),
        }
        for (number, target_ms, step, network), timing in zip(networks, timings, strict=True)
    ]


def summary(rows: list[dict[str, object]], multiple: int) -> str:
    """Geometric means of the ratios."""

    def ratio(column: str) -> float:
        values = [np.log([float(str(row[column])) for row in rows if row["multiple"] == m]) for m in (multiple, 1)]
        return float(np.exp(np.mean(values[0] - values[1])))

    return (
        f"{len(rows) // 2} networks, at multiples of {multiple} over any widths: {ratio('macs'):.2f} times the"
        f" multiply-adds, {ratio('table_ms'):.2f} times the latency by the table, {ratio('measured_ms'):.2f} times"
        " the measured one"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="of a space with all widths")
    parser.add_argument("--multiple", type=int, default=4)
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = compare(LatencyTable.load(options.table), options.multiple, options.networks)
    with atomic_path(options.out) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(summary(rows, options.multiple))


if __name__ == "__main__":
    main()
