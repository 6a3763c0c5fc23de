"""Which part of a search's time is spent inside forward and backward.

python benchmarks/search/search_time.py --results results

RESULTS must hold the stages before `search`. Runs the search job of the first target on CPU (images, checkpoints,
scaling and logging included; start-up and MLflow left out) and prints where its seconds went: of the clock, and of the
processor, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tfnas.data.images.loader import EpochLoader
from tfnas.jobs.checkpoints import CheckpointFolder
from tfnas.search.epoch import EpochRunner
from tfnas.search.steps import Stepper
from tfnas.search.supernet.supernet import Supernet
from tfnas.stages.job import Job
from tfnas.stages.params import load_params
from tfnas.stages.registry import STAGES
from tfnas.stages.search import check, run
from tfnas.tracking.runs import NoRun

SECONDS: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # of the clock, of the processor
COMPUTE = ("forward of paths", "forward of all operations", "backward", "forward of evaluated networks")


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def count(name: str, begin: tuple[float, float]) -> None:
    for i, (start, end) in enumerate(zip(begin, now(), strict=True)):
        SECONDS[name][i] += end - start


def measured(owner: Any, method: str, name: str) -> None:
    """Count the seconds inside a method."""
    original: Callable[..., Any] = getattr(owner, method)

    @functools.wraps(original)
    def timed(*arguments: Any, **options: Any) -> Any:
        begin = now()
        try:
            return original(*arguments, **options)
        finally:
            count(name, begin)

    setattr(owner, method, timed)


def measure_loading() -> None:
    """Count the seconds that a batch is waited for."""
    original = EpochLoader.__iter__

    def timed(loader: EpochLoader) -> Iterator[Any]:
        batches = original(loader)
        while True:
            begin = now()
            batch = next(batches, None)
            count("images", begin)
            if batch is None:
                return
            yield batch

    EpochLoader.__iter__ = timed  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--epochs", type=int, help="fewer than the parameters' (another cosine: for a quick look)")
    options = parser.parse_args()
    params, results = load_params(options.params), options.results.resolve()
    target = next(iter(params.targets))
    stage = STAGES["search"]
    inputs = {given.option: results / given.stage / given.output for given in stage.inputs}
    with tempfile.TemporaryDirectory() as folder:
        job = Job(stage, params, inputs, Path(folder), NoRun(), target)
        checked = check(job)
    if options.epochs:
        params = params.model_copy(update={"search": params.search.model_copy(update={"epochs": options.epochs})})
    for owner, method, name in (
        (Supernet, "forward_paths", COMPUTE[0]),
        (Supernet, "forward_mixed", COMPUTE[1]),
        (torch.Tensor, "backward", COMPUTE[2]),
        (Supernet, "forward_derived", COMPUTE[3]),
        (EpochRunner, "_evaluate", "evaluation in all"),
        (Stepper, "weight_step", "weight steps in all"),
        (Stepper, "architecture_step", "architecture steps in all"),
        (EpochRunner, "_scale", "scaling"),
        (CheckpointFolder, "save", "checkpoints"),
    ):
        measured(owner, method, name)
    measure_loading()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        begin = now()
        run(Job(stage, params, inputs, Path(folder), NoRun(), target), checked)
        count("the whole search", begin)
    total = SECONDS["the whole search"]
    SECONDS["inside forward and backward"] = [sum(SECONDS[name][i] for name in COMPUTE) for i in range(2)]
    print(f"{'':30} {'clock':>18} {'processor':>18}")
    for name, seconds in SECONDS.items():
        cells = (f"{own:8.2f} s {100 * own / all_:6.1f} %" for own, all_ in zip(seconds, total, strict=True))
        print(f"{name:30} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
