"""Kills a search with SIGKILL at random moments, resumes it each time, and compares its end with an undisturbed one.

python benchmarks/search_kills.py --results results --kills 10

RESULTS must hold the stages before `search`. Exits with 1 where anything but durations differs, or where the search did
not stay one MLflow run.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tfnas.jobs.checkpoints import read_tensors
from tfnas.stages.params import load_params

SCRIPT = Path(__file__).parents[1] / "workflow" / "scripts" / "search.py"
INPUTS = {
    "--train": "build_subset/train.csv",
    "--val": "build_subset/val.csv",
    "--images": "build_subset/images",
    "--table": "profile_latency/latency_table.json",
    "--warm-up": "warm_up/supernet.pt",
}


def start(work: Path, results: Path, target: str, out: str) -> subprocess.Popen[bytes]:
    """The search as the engines call it, in a folder and a tracking store of its own."""
    command = [sys.executable, str(SCRIPT), "--params", "params.yaml", "--target", target]
    for option, path in INPUTS.items():
        command += [option, str(results / path)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{work}/{out}.db"}
    return subprocess.Popen([*command, "--out", out, "--log", f"{out}.log"], cwd=work, env=environment)


def epochs_saved(work: Path, target: str) -> int:
    """Epochs in the newest checkpoint."""
    files = sorted((work / "checkpoints" / "search" / target).glob("*.pt"))
    return len(read_tensors(files[-1])["state"]["history"]) if files else 0


def differences(one: Path, two: Path) -> list[str]:
    """What two finished searches differ in, durations left out."""
    found = [n for n in ("supernet.pt", "metrics.json") if (one / n).read_bytes() != (two / n).read_bytes()]
    rows = []
    for folder in (one, two):
        with (folder / "history.csv").open(newline="") as file:
            read = csv.DictReader(file)
            rows.append([{k: v for k, v in row.items() if not k.startswith("seconds")} for row in read])
    return found if rows[0] == rows[1] else [*found, "history.csv"]


def tracking_faults(store: Path, epochs: int) -> list[str]:
    """Whether one run has every epoch exactly once."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{store}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    if len(runs) != 1:
        return [f"{len(runs)} MLflow runs"]
    steps = [metric.step for metric in client.get_metric_history(runs[0].info.run_id, "train_loss") if metric.step]
    return [] if steps == list(range(1, epochs + 1)) else [f"epochs {steps} in MLflow"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--target", help="default: the first one")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    params, results = load_params(options.params), options.results.resolve()
    target, draw = options.target or next(iter(params.targets)), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copy(options.params, work / "params.yaml")
        if (own := options.params.resolve().parent / "inputs").is_dir():  # files that the parameters name
            shutil.copytree(own, work / "inputs")
        begin = time.monotonic()
        if start(work, results, target, "whole").wait() != 0:
            sys.exit((work / "whole.log").read_text() if (work / "whole.log").exists() else "the search did not start")
        seconds = time.monotonic() - begin
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        kills, faults, round_ = 0, list[str](), 0
        while kills < options.kills:
            round_ += 1
            killed = kill_until_it_ends(work, results, target, f"killed{round_}", options.kills - kills, seconds, draw)
            kills += killed
            with (work / "whole" / "history.csv").open() as file:
                epochs = len(file.readlines()) - 1
            found = differences(work / "whole", work / f"killed{round_}")
            found += tracking_faults(work / f"killed{round_}.db", epochs)
            faults += found
            print(f"search {round_}: killed {killed} times, differences: {', '.join(found) or 'none'}", flush=True)
        sys.exit(1 if faults else 0)


def kill_until_it_ends(
    work: Path, results: Path, target: str, out: str, most: int, seconds: float, draw: random.Random
) -> int:
    """How many times a search was killed before it ended; at most `most` times."""
    kills = 0
    while True:
        process = start(work, results, target, out)
        try:
            wait = draw.uniform(0.0, 0.6 * seconds) if kills < most else None
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            print(f"  killed after {wait:.2f} s, {epochs_saved(work, target)} epochs saved", flush=True)
            continue
        assert process.returncode == 0, (work / f"{out}.log").read_text()
        return kills


if __name__ == "__main__":
    main()
