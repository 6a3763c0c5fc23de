"""Kills a retraining with SIGKILL at random moments in the middle of its epochs, lets it go on each time, and compares
its end with that of an undisturbed one.

    python benchmarks/train_kills.py --results results --kills 5

RESULTS must hold `prepare_data` and `derive`. The parameters are those of params.yaml but for
`checkpoint_every_steps`. Each kill falls into a part of its own of the training. Says from where the training went on;
exits with 1 where weights.pt, metrics.json or history.csv (but for seconds) differ.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from tfnas.jobs.checkpoints import read_tensors
from tfnas.stages.params import load_params

SCRIPT = Path(__file__).parents[1] / "workflow" / "scripts" / "retrain.py"
POLL_SECONDS = 0.01
AFTER_SECONDS = 0.3  # at most, between a checkpoint and the kill


class Job(NamedTuple):
    """Where the training runs and what it reads."""

    work: Path
    results: Path
    target: str

    def checkpoints(self) -> list[Path]:
        return sorted((self.work / "checkpoints" / "retrain" / self.target).glob("*.pt"))

    def said(self, out: str) -> str:
        return (self.work / f"{out}.txt").read_text()


class Saved(NamedTuple):
    """What the newest checkpoint holds: whole epochs, and steps of the next one."""

    epochs: int
    steps: int


def main() -> None:
    options = _parse_options()
    target = options.target or next(iter(load_params(options.params).targets))
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), options.results.resolve(), target)
        write_params(options, job.work / "params.yaml")
        begin = time.monotonic()
        saves = watch(job, start(job, "whole"), until=None)
        seconds = time.monotonic() - begin
        print(f"undisturbed: {saves} checkpoints in {seconds:.1f} s", flush=True)
        # a kill in each of as many equal parts of the training
        moments = [(saves - 3) * (part + draw.random()) / options.kills for part in range(options.kills)]
        kill_at(job, "killed", [1 + int(moment) for moment in moments], draw.random)
        found = differences(job.work / "whole", job.work / "killed")
        print(f"differences: {', '.join(found) or 'none'}", flush=True)
        sys.exit(1 if found else 0)


def write_params(options: argparse.Namespace, path: Path) -> None:
    """The parameter file with checkpoints within epochs."""
    params = yaml.safe_load(options.params.read_text(encoding="utf-8"))
    params["retrain"]["checkpoint_every_steps"] = options.every
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def start(job: Job, out: str) -> subprocess.Popen[bytes]:
    """The training as the engines call it, in a folder and a tracking store of its own."""
    inputs = {
        "--architecture": f"derive/{job.target}/architecture.json",
        "--manifest": "prepare_data/manifest.csv",
        "--images": "prepare_data/images",
    }
    command = [sys.executable, str(SCRIPT), "--params", "params.yaml", "--target", job.target]
    for option, path in inputs.items():
        command += [option, str(job.results / path)]
    command += ["--out", out, "--log", f"{out}.log"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{job.work}/{out}.db"}
    with (job.work / f"{out}.txt").open("w") as said:
        return subprocess.Popen(command, cwd=job.work, env=environment, stdout=said, stderr=said)


def watch(job: Job, process: subprocess.Popen[bytes], *, until: int | None) -> int:
    """Wait for the end of the process, or until so many checkpoints were saved; gives how many were."""
    saves = 0
    while process.poll() is None and (until is None or saves < until):
        time.sleep(POLL_SECONDS)
        # CheckpointFolder counts them in their names, also over several processes
        saves = max([saves, *(int(path.stem.rpartition("-")[2]) for path in job.checkpoints())])
    return saves


def kill_at(job: Job, out: str, moments: list[int], draw: Callable[[], float]) -> None:
    """Kill the training soon after each of these numbers of checkpoints, and let it go on to its end."""
    for moment in moments:
        process = start(job, out)
        watch(job, process, until=moment)
        time.sleep(AFTER_SECONDS * draw())
        assert process.poll() is None, f"it ended before its checkpoint {moment}: {job.said(out)}"
        process.kill()
        process.wait()
        progress = read_tensors(job.checkpoints()[-1])["state"]["progress"]
        saved = Saved(len(progress["history"]), progress["step"])
        print(f"killed at checkpoint {moment}: goes on after epoch {saved.epochs}, step {saved.steps}", flush=True)
    process = start(job, out)
    assert process.wait() == 0, job.said(out)


def differences(one: Path, two: Path) -> list[str]:
    """What two finished trainings differ in, durations left out."""
    found = [n for n in ("weights.pt", "metrics.json") if (one / n).read_bytes() != (two / n).read_bytes()]
    rows = [[{**row, "seconds": ""} for row in read_rows(folder / "history.csv")] for folder in (one, two)]
    return found if rows[0] == rows[1] else [*found, "history.csv"]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--target", help="default: the first one")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--every", type=int, default=3, help="steps between two checkpoints (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    main()
