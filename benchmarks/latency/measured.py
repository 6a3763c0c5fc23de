"""What the benchmarks of this folder have in common: full tables, networks timed in rounds, Markdown tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tfnas.compute.devices import device_name, time_sequence
from tfnas.jobs.artifacts import write_json
from tfnas.latency import LatencyTable
from tfnas.latency.measuring import Measuring
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.validation import Validated, read_validation, write_validation
from tfnas.space import Space
from tfnas.stages.profile_latency import profile, profile_metrics

WARMUP_RUNS, REPEATS = 2, 10  # per network and round
DEVICES = {  # one machine has several: backend, threads
    "torch": {"backend": "torch-eager", "threads": 1},
    "torch-2-threads": {"backend": "torch-eager", "threads": 2},
    "onnx": {"backend": "onnx-runtime", "threads": 1},
}


def common_options(description: str, steps: Sequence[str], *, backends: str, networks: str) -> argparse.ArgumentParser:
    """A parser of a step's name, and of what the steps of runtimes.py and int8.py have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=steps)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backends", default=backends, help=f"default: {backends}")
    parser.add_argument("--space", default="tf-nas")
    parser.add_argument("--resolution", type=int, help="default: the space's; of networks, 224")
    parser.add_argument("--validation-networks", type=int, default=32)
    parser.add_argument("--networks", default=networks, help="names of the zoo; int8.py also takes files")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def profile_params(backend: str = "torch-eager", **changed: Any) -> ProfileLatencyParams:
    """As `tfnas profile` measures by default: one CPU thread, float32, batch 1, ImageNet's classes; ten minutes."""
    values = {
        "table": None, "device": "cpu", "backend": backend, "precision": "float32", "channels_last": False,
        "threads": 1, "batch_size": 1, "num_classes": 1000, "minutes": 10.0, "tolerance": 0.01, "warmup_runs": 2,
        "repeats": 8, "validation_networks": 32, "calibrated": True, "on_busy": "refuse",
    }  # fmt: skip
    return ProfileLatencyParams.model_validate(values | changed)


def full_table(
    space: Space, params: ProfileLatencyParams, folder: Path, *, resolution: int | None = None, seed: int = 0
) -> tuple[LatencyTable, list[Validated]]:
    """A table and whole networks beside it, measured unless they are there; killed, it goes on where it was.

    The folder then has latency_table.json, validation.csv and metrics.json, as the stage profile_latency leaves it.
    """
    path = folder / "latency_table.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        size, journal = resolution or space.resolution, folder / "visits.jsonl"
        measuring = Measuring(params, space=space.digest, resolution=size, journal=journal)
        table, rows = profile(space, measuring, seed=seed)
        write_validation(rows, folder / "validation.csv")
        write_json(folder / "metrics.json", profile_metrics(table, space, rows))
        table.save(path)
        measuring.discard()
    return LatencyTable.load(path), read_validation(folder / "validation.csv")


def time_in_rounds(runs: Mapping[str, Callable[[], object]], path: Path, rounds: int, resolution: int) -> None:
    """Each round times all in random order, and is a line of the file: their medians in ms. Finished rounds stay."""
    for number in range(len(read_rounds(path)), rounds):
        found = {}
        for key in np.random.default_rng(number).permutation(list(runs)).tolist():
            samples_ms = time_sequence(torch.device("cpu"), [runs[key]], WARMUP_RUNS + REPEATS)
            found[key] = float(np.median(samples_ms[WARMUP_RUNS:]))
        with path.open("a") as file:
            in_order = {key: found[key] for key in runs}
            file.write(json.dumps({"resolution": resolution, "device": device_name("cpu"), "ms": in_order}) + "\n")


def read_rounds(path: Path) -> list[dict[str, float]]:
    """Milliseconds by key, in each round; none where there is no file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line)["ms"] for line in lines]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.median([found[key] for found in rounds])) for key in rounds[0]}


def ratio(rounds: Sequence[Mapping[str, float]], key: str, to: str) -> str:
    """Median and quartiles, over the rounds, of the ratio within a round."""
    low, middle, high = np.quantile([found[key] / found[to] for found in rounds], (0.25, 0.5, 0.75))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def markdown(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A table, after an empty line."""
    yield from ("", "| " + " | ".join(map(str, head)) + " |", "|" + "---|" * len(head))
    yield from ("| " + " | ".join(map(str, row)) + " |" for row in rows)
