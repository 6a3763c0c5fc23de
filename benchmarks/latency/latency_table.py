"""How good a latency table is: against fresh measurements, whole networks, a second table, and under load.

    python benchmarks/latency/latency_table.py accuracy --minutes 1 2 5 10
    python benchmarks/latency/latency_table.py accuracy --minutes 5 --backend onnx-runtime
    python benchmarks/latency/latency_table.py agree
    python benchmarks/latency/latency_table.py load

Each makes its tables itself, of Table 1 at 224 x 224, batch 1, one thread, by `tfnas profile`'s own code. Let nothing
else run. `accuracy` profiles once, for the longest budget; the table of a shorter one is what the measurements up to
then give. It compares with 300 random (operation, width) points, timed afresh in tours of their own between those of
the profile, and with 50 random and the published networks: half of them correct the table, the others judge it. The
machine's speed changes by the minute, so what is compared is brought to the same speed by the fixed parts, which are in
every tour.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measured import profile_params

from tfnas.jobs.errors import UserError
from tfnas.latency import LatencyTable, OperationKey
from tfnas.latency.backends import BackendOptions, open_backend
from tfnas.latency.measuring import Measuring, fixed_parts
from tfnas.latency.profiler import operation_ranges, profile_space
from tfnas.latency.tours import Point, Visit, deal_tours, estimate, tour_slots
from tfnas.latency.validation import (
    apply_calibration,
    fit_calibration,
    published_members,
    validation_metrics,
    validation_networks,
)
from tfnas.latency.validation import validated as beside
from tfnas.space import Architecture, Space, load_space
from tfnas.stages.profile_latency import profile

VISITS = 6  # of each fresh point and network


def main() -> None:
    options = _parse_options()
    space = load_space(options.space)
    {"accuracy": measure_accuracy, "agree": compare_tables, "load": compare_under_load}[options.what](space, options)


def measure_accuracy(space: Space, options: argparse.Namespace) -> None:
    """Errors at random widths and of whole networks, a line each for every budget."""
    networks = _networks(space, options)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "visits"
        measuring = _measuring(space, options, minutes=max(options.minutes), journal=journal)
        measuring.fresh = _fresh_tours(space, options)
        profile_space(space, measuring, networks=networks)
        lines = journal.read_text().splitlines(keepends=True)
        for minutes in options.minutes:
            count = int(np.searchsorted(np.cumsum([visit.seconds for visit in measuring.visits]), 60 * minutes)) + 1
            journal.write_text("".join(lines[: 1 + count]))
            until = _measuring(space, options, minutes=minutes, journal=journal)
            table, networks_ms = profile_space(space, until, networks=networks)
            errors = _errors(table, measuring.fresh_ms(count))
            print(f"{options.backend}, {minutes:g} min, {table.details['tours']} tours: {errors}")
            print(f"    {_network_errors(table, networks, networks_ms)}", flush=True)


class WithFreshTours(Measuring):
    """Visits other tours too, spread over the profile's time, and not on its budget."""

    fresh: Sequence[tuple[Point, ...]] = ()

    def keep(self, visit: Visit) -> Visit:
        self.timeline = [*getattr(self, "timeline", ()), (False, visit)]
        kept = super().keep(visit)
        done = sum(fresh for fresh, _ in self.timeline)
        while done < len(self.fresh) * self.seconds / (60 * self.params.minutes) and done < len(self.fresh):
            points = self.fresh[done]
            latencies_ms, share = self.measure(points)
            self.timeline.append((True, Visit(points, latencies_ms, share, 0.0)))
            done += 1
        return kept

    def fresh_ms(self, count: int | None = None) -> dict[Point, float]:
        """Latencies of the fresh points, at the speed that the machine had in the profile's first `count` visits."""
        own = [place for place, (fresh, _) in enumerate(self.timeline) if not fresh][:count]
        renamed = [_renamed(visit) if fresh else visit for fresh, visit in self.timeline]
        found = estimate(renamed)
        speed = float(np.median(1.0 + found.drift[own]))
        return {(key, -width): speed * point.latency_ms for (key, width), point in found.points.items() if width < 0}


def _renamed(visit: Visit) -> Visit:
    """Fresh points under names of their own, widths below zero: the profile's visits of them do not count."""
    return visit._replace(
        points=tuple((key, -width) if isinstance(key, OperationKey) else (key, width) for key, width in visit.points)
    )


def _network_errors(table: LatencyTable, networks: list[Architecture], networks_ms: list[float]) -> str:
    fitted, unseen = slice(0, None, 2), slice(1, None, 2)
    calibration = fit_calibration([table.latency_ms(network) for network in networks[fitted]], networks_ms[fitted])
    assert calibration is not None
    corrected = apply_calibration(table, calibration)
    plain, after = (
        validation_metrics(beside(one, networks[unseen], networks_ms[unseen])) for one in (table, corrected)
    )
    applied = "" if calibration.helps else " (it would not be applied)"
    return f"networks never seen: plain {_numbers(plain)}; corrected{applied} {_numbers(after)}"


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
    share = table.details["cpu_share"]
    print(f"CPU share {share:.2f}: {_errors(table, _timed_afresh(space, options))}")


def make_table(
    space: Space, options: argparse.Namespace, minutes: float, *, seed: int = 0, on_busy: str = "warn"
) -> LatencyTable:
    """As `tfnas profile` makes it."""
    return profile(space, _measuring(space, options, minutes=minutes, on_busy=on_busy), seed=seed)[0]


def _measuring(
    space: Space, options: argparse.Namespace, *, journal: Path | None = None, **changes: object
) -> WithFreshTours:
    values = {"device": options.device, "batch_size": options.batch_size, "calibrated": False, "on_busy": "warn"}
    params = profile_params(options.backend, **values | {"minutes": 1.0} | changes)
    backend = open_backend(options.backend, BackendOptions(options.device, 1), source="--backend")
    return WithFreshTours(params, space=space.name, resolution=space.resolution, backend=backend, journal=journal)


def draw_points(space: Space, count: int, seed: int) -> list[tuple[OperationKey, int]]:
    """`count` distinct (operation, width) pairs, both drawn uniformly."""
    random, ranges = np.random.default_rng(seed), list(operation_ranges(space, space.resolution).items())
    points: set[tuple[OperationKey, int]] = set()
    while len(points) < count:
        key, (low, high) = ranges[random.integers(len(ranges))]
        points.add((key, int(random.integers(low, high + 1))))
    return sorted(points)


def _fresh_tours(space: Space, options: argparse.Namespace) -> list[tuple[Point, ...]]:
    """`VISITS` times all points, in tours; where a layer has no point left, one of the others goes again."""
    points = draw_points(space, options.points, seed=1)
    parts = fixed_parts(space, space.resolution, 1000, options.batch_size)
    slots, random = tour_slots(space, space.resolution, list(parts)), np.random.default_rng(2)
    ranges = operation_ranges(space, space.resolution)
    knots = {key: [width for other, width in points if other == key] or [low] for key, (low, _) in ranges.items()}
    return [tour for _ in range(VISITS) for tour in deal_tours(slots, points, knots, random)]


def _timed_afresh(space: Space, options: argparse.Namespace) -> dict[Point, float]:
    """The random points, measured now."""
    measuring = _measuring(space, options)
    with measuring.session(fixed_parts(space, space.resolution, 1000, options.batch_size), []):
        for tour in _fresh_tours(space, options):
            measuring.visit(tour)
    return {point: found.latency_ms for point, found in estimate(measuring.visits).points.items()}


def _errors(table: LatencyTable, fresh: dict[Point, float]) -> str:
    """Of the measured table; a corrected one is of networks, not of operations."""
    measured = ((point, ms) for point, ms in fresh.items() if isinstance(point[0], OperationKey))
    percent = np.array([100.0 * (table.operation_ms(*point) / ms - 1.0) for point, ms in measured])
    median, high = np.quantile(abs(percent), (0.5, 0.95))
    return f"{len(percent)} fresh points: {median:.2f} % median, {high:.2f} % 95th, bias {percent.mean():+.2f} %"


def _networks(space: Space, options: argparse.Namespace) -> list[Architecture]:
    """Random ones, and the published ones of the space, spread among them."""
    networks = validation_networks(space, options.networks, seed=99)
    for place, published in enumerate(published_members(space)):
        networks.insert(5 * place, published)
    return networks


def _numbers(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items())


def _burn() -> None:
    while True:
        np.linalg.norm(np.random.default_rng(0).random((300, 300)) @ np.ones((300, 300)))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "agree", "load"))
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
