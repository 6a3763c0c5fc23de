"""How good a latency table is: against fresh measurements, whole networks, and a second table.

    python benchmarks/latency_table.py points   --minutes 1 2 4    # 300 random (operation, width) points, timed afresh
    python benchmarks/latency_table.py networks --backend onnxruntime   # 50 random networks and the published ones
    python benchmarks/latency_table.py agree                       # two tables, one after the other
    python benchmarks/latency_table.py load                        # two jobs load the machine meanwhile

Each makes its tables itself, of Table 1 at 224 x 224, batch 1, one thread, by `tfnas profile`'s own code. Let nothing
else run. Fresh points are timed in tours of their own, interleaved, after the table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys

import numpy as np

from tfnas.latency import LatencyTable, OperationKey
from tfnas.latency.backends import BackendOptions, open_backend
from tfnas.latency.estimate import estimate
from tfnas.latency.job import profile
from tfnas.latency.measuring import Measuring
from tfnas.latency.probes import fixed_parts
from tfnas.latency.profiler import operation_ranges
from tfnas.latency.tours import NETWORK, Point, deal_tours, tour_slots
from tfnas.latency.validation import validated as beside
from tfnas.latency.validation import validation_metrics, validation_networks
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import ProfileLatencyParams
from tfnas.space import Architecture, Space, load_space, zoo

VISITS = 6  # of each fresh point and network


def main() -> None:
    options = _parse_options()
    space = load_space(options.space)
    {"points": compare_points, "networks": compare_networks, "agree": compare_tables, "load": compare_under_load}[
        options.what
    ](space, options)


def compare_points(space: Space, options: argparse.Namespace) -> None:
    """One line a budget: the table's error at random widths."""
    for minutes in options.minutes:
        table = make_table(space, options, minutes)
        print(f"{minutes:g} min, {table.details['tours']} tours: {_point_errors(table, space, options)}", flush=True)


def compare_networks(space: Space, options: argparse.Namespace) -> None:
    """The table, plain and corrected, beside networks that the correction was not fitted to."""
    table = make_table(space, options, options.minutes[0])
    networks = [*validation_networks(space, options.networks, seed=99), *_published(table)]
    measured_ms = measure_networks(networks, space, options)
    for name, each in (("corrected", table), ("plain", _plain(table))):
        found = validation_metrics(beside(each, networks, measured_ms))
        print(f"{options.backend}, {len(networks)} networks never seen, {name}: {_numbers(found)}")


def compare_tables(space: Space, options: argparse.Namespace) -> None:
    """Two tables of the same device."""
    one, other = (make_table(space, options, options.minutes[0], seed=seed) for seed in (0, 1))
    pairs = [(one.operation_ms(*point), other.operation_ms(*point)) for point in draw_points(space, 1000, seed=5)]
    percent = np.array([100.0 * (b / a - 1.0) for a, b in pairs])
    print(f"two tables: differ by {np.median(abs(percent)):.2f} % median, by {percent.mean():+.2f} % on average")


def compare_under_load(space: Space, options: argparse.Namespace) -> None:
    """A table made beside two jobs that compute all the time, against points timed afresh without them."""
    jobs = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(2)]
    for job in jobs:
        job.start()
    try:
        table = make_table(space, options, options.minutes[0], on_busy=options.on_busy)
    except UserError as error:
        print(f"refused: {error}")
        return
    finally:
        for job in jobs:
            job.terminate()
    print(f"CPU share {table.details['cpu_share']:.2f}: {_point_errors(table, space, options)}")


def make_table(
    space: Space, options: argparse.Namespace, minutes: float, *, seed: int = 0, on_busy: str = "warn"
) -> LatencyTable:
    """As `tfnas profile` makes it."""
    return profile(space, _measuring(space, options, minutes=minutes, on_busy=on_busy), seed=seed)[0]


def _measuring(space: Space, options: argparse.Namespace, **changes: object) -> Measuring:
    values = {
        "device": options.device, "threads": 1, "batch_size": options.batch_size, "num_classes": 1000, "minutes": 1.0,
        "tolerance": 0.01, "warmup_runs": 2, "repeats": 8, "validation_networks": 20, "calibrated": True,
        "on_busy": "warn", "backend": options.backend, "channels_last": False, "precision": "float32", "table": None,
    }  # fmt: skip
    params = ProfileLatencyParams.model_validate({**values, **changes})
    backend = open_backend(options.backend, BackendOptions(options.device, 1), source="--backend")
    return Measuring(params, space=space.name, resolution=space.resolution, backend=backend)


def draw_points(space: Space, count: int, seed: int) -> list[tuple[OperationKey, int]]:
    """`count` distinct (operation, width) pairs, both drawn uniformly."""
    random, ranges = np.random.default_rng(seed), list(operation_ranges(space, space.resolution).items())
    points: set[tuple[OperationKey, int]] = set()
    while len(points) < count:
        key, (low, high) = ranges[random.integers(len(ranges))]
        points.add((key, int(random.integers(low, high + 1))))
    return sorted(points)


def _point_errors(table: LatencyTable, space: Space, options: argparse.Namespace) -> str:
    points = draw_points(space, options.points, seed=1)
    measuring = _measuring(space, options)
    parts = fixed_parts(space, space.resolution, 1000, options.batch_size)
    slots, random = tour_slots(space, space.resolution, list(parts)), np.random.default_rng(2)
    knots = {key: [width for other, width in points if other == key] or [low] for key, (low, _) in
             operation_ranges(space, space.resolution).items()}  # fmt: skip
    with measuring.session(parts, []):
        for _ in range(VISITS):
            for tour in deal_tours(slots, points, knots, random):
                measuring.visit(tour)
    fresh = estimate(measuring.visits).points
    plain = _plain(table)
    percent = np.array([100.0 * (plain.operation_ms(*point) / fresh[point].latency_ms - 1.0) for point in points])
    median, high = np.quantile(abs(percent), (0.5, 0.95))
    return f"{len(points)} fresh points: {median:.2f} % median, {high:.2f} % 95th, bias {percent.mean():+.2f} %"


def measure_networks(networks: list[Architecture], space: Space, options: argparse.Namespace) -> list[float]:
    """End to end, in turn, round by round."""
    measuring = _measuring(space, options)
    points: list[Point] = [(NETWORK, number) for number in range(len(networks))]
    random, samples = np.random.default_rng(3), []
    with measuring.session({}, networks):
        for _ in range(VISITS):
            order = random.permutation(len(points))
            found = [measuring.measure([points[i]])[0][0] for i in order]
            samples.append(np.array(found)[np.argsort(order)])
    return [float(ms) for ms in np.nanmedian(samples, 0)]


def _published(table: LatencyTable) -> list[Architecture]:
    """The published networks whose operations the table holds."""
    networks = []
    for name in zoo.names():
        try:
            table.latency_ms(zoo.load(name))
        except UserError:
            continue
        networks.append(zoo.load(name))
    return networks


def _plain(table: LatencyTable) -> LatencyTable:
    """The table without its correction."""
    from dataclasses import replace

    found = table.details.get("calibration", {})
    if not found.get("applied"):
        return table
    curves = {
        key: replace(curve, latencies_ms=tuple(ms / found["scale"] for ms in curve.latencies_ms))
        for key, curve in table.curves.items()
    }
    return replace(table, base_ms=(table.base_ms - found["offset_ms"]) / found["scale"], curves=curves)


def _numbers(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items())


def _burn() -> None:
    while True:
        np.linalg.norm(np.random.default_rng(0).random((300, 300)) @ np.ones((300, 300)))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("points", "networks", "agree", "load"))
    parser.add_argument("--minutes", type=float, nargs="+", default=[4.0], help="budget of a table (default: 4)")
    parser.add_argument("--space", default="tf-nas", help="a name or a .yaml file (default: tf-nas)")
    parser.add_argument("--backend", default="torch-eager", help="as of tfnas profile (default: torch-eager)")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--batch-size", type=int, default=1, help="default: 1")
    parser.add_argument("--points", type=int, default=300, help="random points (default: 300)")
    parser.add_argument("--networks", type=int, default=50, help="random networks (default: 50)")
    parser.add_argument("--on-busy", choices=("warn", "refuse"), default="refuse", help="default: refuse")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
