"""A network's latency by several runtimes, beside its target and its table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tfnas.deploy.export import Runner
from tfnas.deploy.origin import read_origin
from tfnas.latency import LatencyTable
from tfnas.latency.measuring import BUSY_SHARE
from tfnas.latency.timer import Timer, Timing, measuring
from tfnas.runtime.artifacts import read_json
from tfnas.space import Architecture

ROUNDS, WARMUP_RUNS = 5, 3


@dataclass(frozen=True)
class Promised:
    """What the search went by: the target and the table's latency, on the table's device."""

    table_ms: float
    target_ms: float | None
    device: str
    batch_size: int
    how: str  # batch, threads and runtime, for a reader


def read_promised(architecture: Architecture, file: Path | None, table: Path | None) -> Promised | None:
    """From the latency table, and from the metrics.json that derive wrote beside the architecture's file.

    Args:
        table: latency_table.json; None for the one that the provenance beside `file` names, if any.

    Raises:
        UserError: a file is damaged, or the table has no such operation.
    """
    beside = read_origin(file) if file is not None else None
    if table is None and beside is not None:
        table = beside.input_named("latency_table.json")
    if table is None:
        return None
    found = LatencyTable.load(table)
    target_ms = None
    if file is not None and beside is not None and beside.stage == "derive":
        target_ms = read_json(file.with_name("metrics.json")).get("target_ms")
    return Promised(found.latency_ms(architecture), target_ms, found.device, found.batch_size, _how(found))


def _how(table: LatencyTable) -> str:
    """Tables that were made elsewhere need not say by what."""
    threads, backend = table.details.get("threads"), table.details.get("backend")
    parts = [f"batch {table.batch_size}"]
    parts += [f"threads {threads}"] if threads else []
    return ", ".join(parts + ([str(backend)] if backend else []))


@dataclass(frozen=True)
class Measured:
    """Each runtime's latency on this machine, and the share of the time in which this process computed."""

    timings: Mapping[str, Timing]
    cpu_share: float

    @property
    def busy(self) -> bool:
        """Other programs took so much of the processor that the latencies are too long."""
        return self.cpu_share < BUSY_SHARE


def measure(runners: Mapping[str, Runner], resolution: int, *, batch_size: int, threads: int, repeats: int) -> Measured:
    """Each runner on one batch, measured in turns so that a disturbance hits all alike."""
    images = torch.randn(batch_size, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    timer = Timer(torch.device("cpu"), WARMUP_RUNS)
    rounds: dict[str, list[list[float]]] = {name: [] for name in runners}
    with measuring(threads):
        start, start_computed = time.perf_counter(), time.thread_time()
        for _ in range(ROUNDS):
            for name, runner in runners.items():
                rounds[name].append(timer.samples_ms(partial(runner, images), repeats))
        share = (time.thread_time() - start_computed) / (time.perf_counter() - start)
    return Measured({name: Timing.of_rounds(samples) for name, samples in rounds.items()}, share)
