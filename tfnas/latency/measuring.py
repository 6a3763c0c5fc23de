"""A profile in progress: what is measured and how, and a journal from which a killed profile resumes."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tfnas.compute.devices import find_device
from tfnas.jobs.artifacts import package_versions
from tfnas.jobs.errors import UserError
from tfnas.latency.backends import Backend, BackendOptions, device_of, open_backend, sequence_of
from tfnas.latency.backends.kept import Keeping
from tfnas.latency.conversion import convert_ahead
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.table import OperationKey
from tfnas.latency.timing import Probe, build, measuring
from tfnas.latency.tours import NETWORK, Point, TimeSequence, Visit, find_alignment, widths_to_compare
from tfnas.space import Architecture, Block, Space, build_network
from tfnas.space.membership import assemble
from tfnas.space.network import MBInvRes
from tfnas.space.space import halve

logger = logging.getLogger("tfnas.latency")
BUSY_SHARE = 0.9  # of the time; a process that computes less has to wait for others
BUSY_SECONDS = 10.0  # of measuring before that is judged
COMPARED = 4  # operations that are compared to find the alignment
COMPARED_ROUNDS = 5
ALIGNMENT = "alignment"  # the entry in the journal


class Measuring:
    """Measures visits on one device and keeps them.

    Args:
        space: digest that distinguishes it from another space of the same name.
        backend: default the one that `params` names.
        journal: file that keeps the visits, so that a killed profile can resume; None keeps nothing.
        time_calls: the clock; default the backend's own, or `tfnas.compute.devices.time_sequence`.

    Raises:
        UserError: the device is absent.
    """

    def __init__(
        self,
        params: ProfileLatencyParams,
        *,
        space: str,
        resolution: int,
        backend: Backend | None = None,
        journal: Path | None = None,
        time_calls: TimeSequence | None = None,
    ) -> None:
        self.params, self.resolution = params, resolution
        self.backend = backend or open_backend(params.backend, BackendOptions.of(params))
        self.device = find_device(params.device, source="profile_latency.device:")
        self._space, self._time_calls = space, time_calls or sequence_of(self.backend)
        self._here = getattr(self.backend, "here", False) and params.device == "cpu"
        self._journal = Journal(journal, self._measured())
        self._probes: dict[Point, Probe] = {}
        self._warned = False
        self.seconds = sum(visit.seconds for visit in self.visits)

    @property
    def visits(self) -> list[Visit]:
        return self._journal.visits

    @property
    def device_name(self) -> str:
        """As recorded in the table."""
        return device_of(self.backend, self.params.device)

    @property
    def cpu_share(self) -> float:
        """The share of the measured time in which this process computed; 1.0 where that is unknown."""
        weights = [visit.seconds for visit in self.visits]
        return float(np.average([visit.cpu_share for visit in self.visits], weights=weights)) if weights else 1.0

    def discard(self) -> None:
        """Remove the journal's file, once a table holds its contents."""
        self._journal.discard()

    def described(self) -> dict[str, Any]:
        """How it is measured, as recorded in a table's details."""
        params = self.params
        return {
            "backend": self.backend.name,
            "backend_version": self.backend.version,
            "precision": params.precision,
            "channels_last": params.channels_last,
            "threads": params.threads,
            "warmup_runs": params.warmup_runs,
            "repeats": params.repeats,
            "num_classes": params.num_classes,
            "tolerance": params.tolerance,
        }

    @contextmanager
    def session(self, parts: Mapping[str, Probe], networks: Sequence[Architecture]) -> Iterator[None]:
        """The conditions of measuring, and the probes that the names of points mean."""
        self._probes = {(name, 0): probe for name, probe in parts.items()}
        size, batch, classes = self.resolution, self.params.batch_size, self.params.num_classes
        for number, network in enumerate(networks):
            self._probes[NETWORK, number] = network_probe(network, size, classes, batch)
        with measuring(self.params.threads):
            yield

    def convert(self, points: Iterable[Point]) -> None:
        """Convert on all cores what will be visited, where the backend takes seconds for it; that is not timed."""
        if isinstance(self.backend, Keeping) and self.backend.keeps:
            probes = [self._probe(point) for point in dict.fromkeys(points)]
            convert_ahead(self.params.backend, BackendOptions.of(self.params), probes)

    def visit(self, points: Sequence[Point]) -> Visit:
        """Measure points one after another, and keep the result."""
        start = time.perf_counter()
        latencies_ms, share = self.measure(points)
        return self.keep(Visit(tuple(points), latencies_ms, share, time.perf_counter() - start))

    def keep(self, visit: Visit) -> Visit:
        """Write a visit into the journal.

        Raises:
            UserError: the machine is too busy, and `on_busy` is `refuse`.
        """
        self.seconds += visit.seconds
        self._journal.append(visit)
        self._check_busy()
        return visit

    def measure(self, points: Sequence[Point]) -> tuple[tuple[float, ...], float]:
        """Build the points' modules and run them in turn; the median of each one's repeats, and the share of CPU time.

        Modules are built each time, so that none keeps one lucky or unlucky place in memory.
        """
        runs = [self._prepare(point) for point in points]
        if self.params.warmup_runs:
            self._time_calls(self.device, runs, self.params.warmup_runs, here=self._here)
        start, start_computed = time.perf_counter(), time.thread_time()
        samples = self._time_calls(self.device, runs, self.params.repeats, here=self._here)
        passed, computed = time.perf_counter() - start, time.thread_time() - start_computed
        medians = tuple(np.median(samples, 0).tolist())
        return medians, min(1.0, computed / passed) if self._here else 1.0

    def _prepare(self, point: Point) -> Callable[[], object]:
        return self.backend.prepare(*build(self._probe(point), self.device))

    def _probe(self, point: Point) -> Probe:
        key, width = point
        return block_probe(key, width, self.params.batch_size) if isinstance(key, OperationKey) else self._probes[point]

    def _check_busy(self) -> None:
        if self._warned or self.seconds < BUSY_SECONDS:
            return
        share = self.cpu_share
        if share >= BUSY_SHARE:
            return
        what = (
            f"profile_latency: other programs take this machine's processor: measuring got {100 * share:.0f} % of the"
            " time it asked for, and latencies would come out too long"
        )
        if self.params.on_busy == "refuse":
            raise UserError(
                f"{what}; stop the others (`top` shows them) and run the same command again, or write"
                " on_busy: warn (--on-busy warn) to measure all the same"
            )
        self._warned = True
        logger.warning("%s", what)

    def _measured(self) -> dict[str, Any]:
        """What must agree for kept visits to count."""
        return {
            **self.described(),
            "space": self._space,
            "resolution": self.resolution,
            "batch_size": self.params.batch_size,
            "device": self.device_name,
            "packages": package_versions(),
        }


def find_device_alignment(measuring: Measuring, ranges: Mapping[OperationKey, tuple[int, int]]) -> int:
    """The alignment of widths that the device favors, found once from neighboring widths of a few operations."""
    for visit in measuring.visits:
        if visit.points[0][0] == ALIGNMENT:
            return visit.points[0][1]
    wide = [(key, widths_to_compare(*limits)) for key, limits in ranges.items() if not key.se_channels]
    wide = [(key, widths) for key, widths in wide if widths]
    some = [wide[round(i)] for i in np.linspace(0, len(wide) - 1, min(COMPARED, len(wide)))]
    measuring.convert((key, width) for key, widths in some for width in widths)
    start = time.perf_counter()
    alignment = find_alignment([_compared(measuring, key, widths) for key, widths in some])
    logger.info("widths at multiples of %d are a class of their own", alignment)
    measuring.keep(Visit(((ALIGNMENT, alignment),), (float("nan"),), 1.0, time.perf_counter() - start))
    return alignment


def _compared(measuring: Measuring, key: OperationKey, widths: Sequence[int]) -> dict[int, float]:
    random, samples = np.random.default_rng(0), []
    for _ in range(COMPARED_ROUNDS):
        order = random.permutation(len(widths))
        latencies_ms, _ = measuring.measure([(key, widths[i]) for i in order])
        samples.append(np.asarray(latencies_ms)[np.argsort(order)])
    return dict(zip(widths, np.median(samples, 0).tolist(), strict=True))


def block_probe(key: OperationKey, width: int, batch_size: int) -> Probe:
    """One MBInvRes block, including its residual where stride and channels allow one."""
    block = Block(key.kernel, key.in_channels, width, key.se_channels, key.out_channels, key.act, key.stride)
    return Probe(partial(MBInvRes, block), (batch_size, key.in_channels, key.resolution, key.resolution))


def network_probe(architecture: Architecture, resolution: int, num_classes: int, batch_size: int) -> Probe:
    """A whole network."""
    shape = (batch_size, architecture.stem.in_channels, resolution, resolution)
    return Probe(partial(build_network, architecture, num_classes), shape)


def fixed_parts(space: Space, resolution: int, num_classes: int, batch_size: int) -> dict[str, Probe]:
    """The parts that all networks of the space share: stem, fixed blocks, 1x1 convolution, pooling with classifier.

    The authors' code sums the same parts as `base`.
    """
    fixed = {stage.stage for stage in space.stages if stage.fixed is not None}
    candidate = space.candidates[0]
    choices = {stage.stage: [(candidate, candidate.width_range(stage.in_channels)[0])] for stage in space.stages}
    smallest = assemble(space, "smallest", choices)
    network = build_network(smallest, num_classes)
    parts: dict[str, Probe] = {}

    def add(name: str, module: nn.Module, channels: int, size: int) -> None:
        parts[name] = Probe(partial(copy.deepcopy, module), (batch_size, channels, size, size))

    add("stem", network.get_submodule("stem"), space.stem.in_channels, resolution)
    size = halve(resolution, space.stem.stride)
    for index, (size, block) in enumerate(smallest.block_resolutions(resolution)):
        if block.stage in fixed:
            add(f"block {index}", network.get_submodule(f"blocks.{index}"), block.in_channels, size)
    last = smallest.blocks[-1]
    add("head", network.get_submodule("head"), last.out_channels, halve(size, last.stride))
    end = nn.Sequential(network.get_submodule("pool"), nn.Flatten(1), network.get_submodule("classifier"))
    add("classifier", end, space.head.out_channels, halve(size, last.stride))
    return parts


class Journal:
    """Visits in a file, one per line of JSON, after a first line that says what was measured.

    Args:
        path: None keeps nothing on disk.
        measured: what must agree for old measurements to count (device, batch, versions...).
    """

    def __init__(self, path: Path | None, measured: Mapping[str, Any]) -> None:
        self._path, self._measured = path, json.loads(json.dumps(measured))
        self.visits: list[Visit] = self._read() if path is not None else []
        if self.visits:
            seconds = sum(visit.seconds for visit in self.visits)
            logger.info("resumes with %d tours (%.0f s) from %s", len(self.visits), seconds, path)

    def append(self, visit: Visit) -> None:
        """Keep a visit; when this returns, the operating system has it."""
        self.visits.append(visit)
        if self._path is not None:
            if len(self.visits) == 1:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(json.dumps(self._measured) + "\n")
            with self._path.open("a") as file:
                file.write(json.dumps(_to_plain(visit)) + "\n")

    def discard(self) -> None:
        """Remove the file: its measurements are in a table now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> list[Visit]:
        """All complete lines; a truncated last line is removed from the file."""
        assert self._path is not None
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]
        lines = whole.splitlines()
        try:
            if not lines or json.loads(lines[0]) != self._measured:
                logger.info("%s holds measurements of something else; measured anew", self._path)
                return []
            visits = [_from_plain(json.loads(line)) for line in lines[1:]]
        except (ValueError, TypeError, KeyError):
            logger.warning("%s is damaged; measured anew", self._path)
            return []
        if whole != text:
            self._path.write_text(whole)
        return visits


def _to_plain(visit: Visit) -> dict[str, Any]:
    points = [[list(key) if isinstance(key, OperationKey) else key, number] for key, number in visit.points]
    return {**visit._asdict(), "points": points}


def _from_plain(plain: dict[str, Any]) -> Visit:
    points: list[Point] = [
        (OperationKey(*key) if isinstance(key, list) else key, number) for key, number in plain["points"]
    ]
    return Visit(tuple(points), tuple(plain["latencies_ms"]), plain["cpu_share"], plain["seconds"])
