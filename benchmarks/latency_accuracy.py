"""How far a latency table is from fresh measurements: random operations and widths, timed anew on this device.

    python benchmarks/latency_accuracy.py --table table.json --space tf-nas --points 300

Run it on the machine that the table was made on, with nothing else running. It prints the median and the
95th percentile of the absolute percentage error, and the bias.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from tfnas.latency import LatencyTable, OperationKey
from tfnas.latency.backends import TorchEager
from tfnas.latency.probes import block_probe
from tfnas.latency.profiler import operation_ranges
from tfnas.latency.rounds import time_probes
from tfnas.latency.timer import Timer, measuring
from tfnas.runtime.devices import find_device
from tfnas.runtime.errors import UserError
from tfnas.space import Space, load_space


def main() -> int:
    options = _parse_options()
    try:
        table, space = LatencyTable.load(options.table), load_space(options.space)
        table.check_fits(space, table.resolution, source=str(options.table))
        percent = errors_percent(table, draw_points(space, table.resolution, options.points, options.seed), options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    median, high = np.quantile(abs(percent), (0.5, 0.95))
    print(f"{len(percent)} random points of {space.name} on {table.device}, timed afresh:")
    print(f"absolute error {median:.2f} % median, {high:.2f} % at the 95th percentile; bias {percent.mean():+.2f} %")
    return 0


def draw_points(space: Space, resolution: int, count: int, seed: int) -> list[tuple[OperationKey, int]]:
    """`count` distinct (operation, width) pairs, both drawn uniformly; fewer where the space has no more."""
    random = np.random.default_rng(seed)
    ranges = list(operation_ranges(space, resolution).items())
    count = min(count, sum(high - low + 1 for _, (low, high) in ranges))
    points: set[tuple[OperationKey, int]] = set()
    while len(points) < count:
        key, (low, high) = ranges[random.integers(len(ranges))]
        points.add((key, int(random.integers(low, high + 1))))
    return sorted(points)


def errors_percent(
    table: LatencyTable, points: list[tuple[OperationKey, int]], options: argparse.Namespace
) -> np.ndarray:
    """Error of the table at each point, in percent of the fresh measurement."""
    device = find_device(options.device, source="--device")
    with measuring(table.details.get("threads", 1)):
        fresh = time_probes(
            {point: block_probe(*point, table.batch_size) for point in points},
            timer=Timer(device, options.warmup_runs),
            backend=TorchEager(),
            repeats=options.repeats,
            seed=options.seed,
            label="points",
        )
    return np.array([100.0 * (table.operation_ms(*point) / fresh[point].median_ms - 1.0) for point in points])


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="latency_table.json that was made on this machine")
    parser.add_argument("--space", default="tf-nas", help="its space, a name or a .yaml file (default: tf-nas)")
    parser.add_argument("--device", default="cpu", help="that it was made on (default: cpu)")
    parser.add_argument("--points", type=int, default=300, help="random points (default: 300)")
    parser.add_argument("--repeats", type=int, default=100, help="runs of each (default: 100)")
    parser.add_argument("--warmup-runs", type=int, default=5, help="runs before, per round (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="of points and order (default: 1)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
