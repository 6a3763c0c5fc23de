"""Kills a retraining with SIGKILL at random moments in the middle of its epochs, lets it go on each time, and compares
its end with that of an undisturbed one.

    python benchmarks/train_kills.py --results results --kills 5

RESULTS must hold `prepare_data` and `derive`. The parameters are those of params.yaml but for
`checkpoint_every_steps`. Says where each training was killed and from where it went on; exits with 1 where weights.pt,
metrics.json or history.csv (but for seconds) differ.
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
from pathlib import Path
from typing import NamedTuple

import yaml

from tfnas.runtime.checkpoints import read_tensors
from tfnas.runtime.params import load_params

SCRIPT = Path(__file__).parents[1] / "workflow" / "scripts" / "retrain.py"
POLL_SECONDS = 0.02


class Saved(NamedTuple):
    """What the newest checkpoint holds: whole epochs, and steps of the next one."""

    epochs: int
    steps: int


def main() -> None:
    options = _parse_options()
    results = options.results.resolve()
    target = options.target or next(iter(load_params(options.params).targets))
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_params(options, work / "params.yaml")
        if start(work, results, target, "whole").wait() != 0:
            sys.exit(read_log(work, "whole") or "the training did not start")
        epochs, seconds = epochs_and_seconds(work / "whole" / "history.csv")
        print(f"undisturbed: {epochs} epochs, {seconds:.1f} s", flush=True)
        left, faults, number = options.kills, list[str](), 0
        while left > 0:
            number += 1
            out = f"killed{number}"
            left -= kill_until_it_ends(work, results, target, out, left, seconds / (options.kills + 1), draw)
            found = differences(work / "whole", work / out)
            faults += found
            print(f"training {number}: differences: {', '.join(found) or 'none'}", flush=True)
        sys.exit(1 if faults else 0)


def write_params(options: argparse.Namespace, path: Path) -> None:
    """The parameter file with checkpoints within epochs."""
    params = yaml.safe_load(options.params.read_text(encoding="utf-8"))
    params["retrain"]["checkpoint_every_steps"] = options.every
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def start(work: Path, results: Path, target: str, out: str) -> subprocess.Popen[bytes]:
    """The training as the engines call it, in a folder and a tracking store of its own."""
    inputs = {
        "--architecture": f"derive/{target}/architecture.json",
        "--manifest": "prepare_data/manifest.csv",
        "--images": "prepare_data/images",
    }
    command = [sys.executable, str(SCRIPT), "--params", "params.yaml", "--target", target]
    for option, path in inputs.items():
        command += [option, str(results / path)]
    command += ["--out", out, "--log", f"{out}.log"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{work}/{out}.db"}
    with (work / f"{out}.txt").open("w") as said:
        return subprocess.Popen(command, cwd=work, env=environment, stdout=said, stderr=said)


def kill_until_it_ends(
    work: Path, results: Path, target: str, out: str, most: int, share: float, draw: random.Random
) -> int:
    """How many times a training was killed before it ended; at most `most` times.

    Args:
        share: seconds of training between two kills, on average.
    """
    kills = 0
    while True:
        process = start(work, results, target, out)
        if kills == most or not killed_under_way(process, work, target, share * draw.uniform(0.2, 1.6)):
            assert process.wait() == 0, read_log(work, out)
            return kills
        kills += 1
        saved = newest(work, target)
        print(f"  kill {kills}: goes on after epoch {saved.epochs}, step {saved.steps}", flush=True)


def killed_under_way(process: subprocess.Popen[bytes], work: Path, target: str, wait: float) -> bool:
    """Kill a process some seconds after its first checkpoint; false where it ended before."""
    before = checkpoint_files(work, target)
    while checkpoint_files(work, target) == before:
        if process.poll() is not None:
            return False
        time.sleep(POLL_SECONDS)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def checkpoint_files(work: Path, target: str) -> list[Path]:
    return sorted((work / "checkpoints" / "retrain" / target).glob("*.pt"))


def newest(work: Path, target: str) -> Saved:
    progress = read_tensors(checkpoint_files(work, target)[-1])["state"]["progress"]
    return Saved(len(progress["history"]), progress["step"])


def differences(one: Path, two: Path) -> list[str]:
    """What two finished trainings differ in, durations left out."""
    found = [n for n in ("weights.pt", "metrics.json") if (one / n).read_bytes() != (two / n).read_bytes()]
    rows = [[{**row, "seconds": ""} for row in read_rows(folder / "history.csv")] for folder in (one, two)]
    return found if rows[0] == rows[1] else [*found, "history.csv"]


def epochs_and_seconds(history: Path) -> tuple[int, float]:
    rows = read_rows(history)
    return len(rows), sum(float(row["seconds"]) for row in rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_log(work: Path, out: str) -> str:
    path = work / f"{out}.txt"
    return path.read_text() if path.exists() else ""


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
