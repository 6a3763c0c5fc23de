"""Kills a whole digits run, engine and jobs, with SIGKILL at random moments; the same command goes on each time.

python benchmarks/kill_minus_nine.py --kills 20

Needs the environment that `make run` makes. In copies of this checkout it makes a latency table, runs `make run` on it
undisturbed, and runs it again with kills, in as many further copies as the kills need. Exits with 1 where the
searches, architectures, weights or histories differ in anything but durations, where something is left over, or where
either engine does not call the killed run complete. A run has the default's stages and images and fewer epochs, and
takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
COPIED = ("Makefile", "pyproject.toml", "Snakefile", "dvc.yaml", ".dvcignore", "workflow", "profiles", "tfnas")
FEWER = {
    "search.epochs": 6,
    "search.warmup_epochs": 2,
    "search.temperature.decay": 0.4,
    "retrain.epochs": 5,
    "retrain.warmup_epochs": 1,
    "transfer.epochs": 3,
    "profile_latency.minutes": 0.3,
    "profile_latency.validation_networks": 4,
    "derive.measure_repeats": 10,
}
SAME = ("supernet.pt", "architecture.json", "weights.pt", "train.csv", "val.csv", "classes.csv", "class_accuracy.csv")
SAME_METRICS = ("search", "retrain", "transfer", "rank_classes")  # the others hold what was measured


def copy_project(folder: Path, **changes: object) -> Path:
    """This checkout's pipeline in a folder of its own, with `FEWER` epochs and further changes."""
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    os.utime(folder / "pyproject.toml", (0, 0))  # older than the environment: make installs nothing
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (folder / "results" / "transfer").mkdir(parents=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in {**FEWER, **changes}.items():
        *parents, last = key.split(".")
        section = params
        for part in parents:
            section = section[part]
        section[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """A command in a process group of its own, its output appended to run.log."""
    bin_folder = (ROOT / ".venv" / "bin").resolve()
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait() != 0:
        sys.exit(f"{' '.join(map(str, process.args))} failed:\n{(folder / 'run.log').read_text()[-3000:]}")


def run_killed(folder: Path, command: list[str], most: int, longest: float, draw: random.Random) -> int:
    """How many times the run was killed before it ended; at most `most` times, each within so many seconds."""
    kills = 0
    while True:
        begun = said(folder)
        process = start(folder, *command)
        while process.poll() is None and said(folder) == begun:
            time.sleep(0.05)
        wait = draw.uniform(0.0, longest) if kills < most else None
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            print(f"  killed after {wait:.1f} s; last job: {last_job(folder)}", flush=True)
            continue
        finish(process, folder)
        return kills


def said(folder: Path) -> int:
    """How many bytes of output there are."""
    log = folder / "run.log"
    return log.stat().st_size if log.exists() else 0


def last_job(folder: Path) -> str:
    logs = [path for path in (folder / "logs").rglob("*.log") if path.is_file()]
    newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    return newest.relative_to(folder / "logs").with_suffix("").as_posix() if newest else "none"


def differences(one: Path, two: Path) -> list[str]:
    """Results that differ between two finished runs, durations and measured latencies left out."""
    found = []
    for path in sorted((one / "results").rglob("*")):
        name = path.relative_to(one)
        other = two / name
        if path.name in SAME or (path.name == "metrics.json" and name.parts[1] in SAME_METRICS):
            same = other.exists() and path.read_bytes() == other.read_bytes()
        elif path.name == "history.csv":
            same = other.exists() and rows(path) == rows(other)
        else:
            continue
        found += [] if same else [str(name)]
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in csv.DictReader(file)]


def leftovers(folder: Path) -> list[str]:
    """Half-written files and checkpoints, and an engine that finds something to do."""
    found = [str(path.relative_to(folder)) for path in (folder / "results").rglob(".*.tmp")]
    found += [str(path.relative_to(folder)) for path in (folder / "checkpoints").rglob("*.pt")]
    for command, words in ((("snakemake", "--dry-run"), "Nothing to be done"), (("dvc", "status"), "up to date")):
        at = (folder / "run.log").stat().st_size
        start(folder, *command).wait()
        said = (folder / "run.log").read_text()[at:]
        found += [] if words in said else [f"{command[0]} says: {said[-300:]}"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=30.0, help="seconds from the first output to a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--command", default="make run", help="the one command (default: make run)")
    parser.add_argument("--work", type=Path, help="folder for the runs; those that are there are used, or go on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(exist_ok=True)
        kills, faults = kill_runs(work, options)
    print(f"{kills} kills; faults: {', '.join(faults) or 'none'}")
    sys.exit(1 if faults else 0)


def kill_runs(work: Path, options: argparse.Namespace) -> tuple[int, list[str]]:
    """Make the undisturbed run and killed ones, as many as the kills need; kills and faults."""
    command, draw = options.command.split(), random.Random(options.seed)
    table = {"profile_latency.table": str(work / "latency_table.json")}
    whole = work / "whole"
    if not whole.exists():
        made = "results/profile_latency/latency_table.json"
        maker = copy_project(work / "table")
        finish(start(maker, "snakemake", "--cores", "all", made), maker)
        shutil.copy(maker / made, work / "latency_table.json")
        copy_project(whole, **table)
        begin = time.monotonic()
        finish(start(whole, *command), whole)
        print(f"undisturbed: {time.monotonic() - begin:.0f} s", flush=True)
    kills, faults, number = 0, leftovers(whole), 0
    while kills < options.kills:
        number += 1
        folder = work / f"killed{number}"
        if not folder.exists():
            copy_project(folder, **table)
        killed = run_killed(folder, command, options.kills - kills, options.longest, draw)
        kills += killed
        found = differences(whole, folder) + leftovers(folder)
        faults += found
        print(f"run {number}: killed {killed} times, differences: {', '.join(found) or 'none'}", flush=True)
    return kills, faults


if __name__ == "__main__":
    main()
