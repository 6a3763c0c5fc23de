"""A network's latency by several runtimes, beside its target and its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tfnas.deploy.export import Runner
from tfnas.deploy.origin import read_origin
from tfnas.latency import LatencyTable
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
    return Promised(found.latency_ms(architecture), target_ms, found.device, found.batch_size)


def measure_ms(
    runners: Mapping[str, Runner], resolution: int, *, batch_size: int, threads: int, repeats: int
) -> dict[str, Timing]:
    """Milliseconds of each runner on one batch, measured in turns so that a disturbance hits all alike."""
    images = torch.randn(batch_size, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    timer = Timer(torch.device("cpu"), WARMUP_RUNS)
    rounds: dict[str, list[list[float]]] = {name: [] for name in runners}
    with measuring(threads):
        for _ in range(ROUNDS):
            for name, runner in runners.items():
                rounds[name].append(timer.samples_ms(partial(runner, images), repeats))
    return {name: Timing.of_rounds(samples) for name, samples in rounds.items()}
