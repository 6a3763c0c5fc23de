"""Kills with SIGKILL at random moments, the same command again each time, and the end against an undisturbed one.

python -m benchmarks.pipeline.kills run --kills 20
python -m benchmarks.pipeline.kills search --results results --kills 10
python -m benchmarks.pipeline.kills retrain --results results --kills 5

`run` kills a whole digits run, engine and jobs. It needs the environment that `make run` makes. In copies of this
checkout it makes a latency table, runs `make run` on it undisturbed, and runs it again with kills, in as many further
copies as the kills need. A run has the default's stages and images and fewer epochs, and takes about three minutes on
two cores. Nothing may be left over, and both engines must call the killed run complete.

`search` kills one search; RESULTS must hold the stages before it, and the search must stay one MLflow run. `retrain`
kills a retraining in the middle of its epochs, each kill in a part of its own of the training, with `--teacher ranking`
one that learns from the ranking network; RESULTS must hold `prepare_data`, `rank_classes` and `derive`.

Exits with 1 where results differ in anything but durations.
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
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.helpers.projects import ROOT, copy_project, set_param
from tfnas.jobs.checkpoints import read_tensors
from tfnas.stages.params import load_params
from tfnas.stages.registry import STAGES

MADE_FOR = ("Makefile", "pyproject.toml", "constraints.txt")  # `make run`
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
POLL_SECONDS = 0.01
AFTER_SECONDS = 0.3  # at most, between a checkpoint of a retraining and the kill


def rows(path: Path) -> list[dict[str, str]]:
    """A history without its durations."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in csv.DictReader(file)]


# ---- a whole run ----


def make_project(folder: Path, **changes: object) -> Path:
    """This checkout's pipeline in a folder of its own, with `FEWER` epochs and further changes."""
    copy_project(folder)
    for name in MADE_FOR:
        shutil.copy(ROOT / name, folder / name)
        os.utime(folder / name, (0, 0))  # older than the environment: make installs nothing
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    for key, value in {**FEWER, **changes}.items():
        set_param(folder, key, value)
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


def leftovers(folder: Path) -> list[str]:
    """Half-written files and checkpoints, and an engine that finds something to do."""
    found = [str(path.relative_to(folder)) for path in (folder / "results").rglob(".*.tmp")]
    found += [str(path.relative_to(folder)) for path in (folder / "checkpoints").rglob("*.pt")]
    for command, words in ((("snakemake", "--dry-run"), "Nothing to be done"), (("dvc", "status"), "up to date")):
        at = (folder / "run.log").stat().st_size
        start(folder, *command).wait()
        told = (folder / "run.log").read_text()[at:]
        found += [] if words in told else [f"{command[0]} says: {told[-300:]}"]
    return found


def kill_runs(options: argparse.Namespace, work: Path) -> list[str]:
    """Make the undisturbed run and killed ones, as many as the kills need; the faults."""
    command, draw = options.command.split(), random.Random(options.seed)
    table = {"profile_latency.table": "inputs/tables/latency_table.json"}
    whole, made = work / "whole", work / "latency_table.json"
    if not whole.exists():
        results = "results/profile_latency/latency_table.json"
        maker = make_project(work / "table")
        finish(start(maker, "snakemake", "--cores", "all", results), maker)
        shutil.copy(maker / results, made)
        give_table(make_project(whole, **table), made)
        begin = time.monotonic()
        finish(start(whole, *command), whole)
        print(f"undisturbed: {time.monotonic() - begin:.0f} s", flush=True)
    kills, faults, number = 0, leftovers(whole), 0
    while kills < options.kills:
        number += 1
        folder = work / f"killed{number}"
        if not folder.exists():
            give_table(make_project(folder, **table), made)
        killed = run_killed(folder, command, options.kills - kills, options.longest, draw)
        kills += killed
        found = differences(whole, folder) + leftovers(folder)
        faults += found
        print(f"run {number}: killed {killed} times, differences: {', '.join(found) or 'none'}", flush=True)
    print(f"{kills} kills; faults: {', '.join(faults) or 'none'}")
    return faults


def give_table(folder: Path, table: Path) -> None:
    """Put the latency table where the parameters name it."""
    (folder / "inputs" / "tables").mkdir(parents=True, exist_ok=True)
    shutil.copy(table, folder / "inputs" / "tables")


# ---- one job ----


class Job(NamedTuple):
    """A job of one target: where it runs and what it reads."""

    stage: str
    work: Path
    results: Path
    target: str

    def start(self, out: str) -> subprocess.Popen[bytes]:
        """The job as the engines call it, in a folder and a tracking store of its own."""
        stage = STAGES[self.stage]
        command = [sys.executable, str(ROOT / stage.script), "--params", "params.yaml", "--target", self.target]
        for option, path in stage.input_paths(target=self.target).items():
            command += [f"--{option.replace('_', '-')}", str(self.results / Path(path).relative_to("results"))]
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{self.work}/{out}.db"}
        command += ["--out", out, "--log", f"{out}.log"]
        with (self.work / f"{out}.txt").open("a") as told:
            return subprocess.Popen(command, cwd=self.work, env=environment, stdout=told, stderr=told)

    def said(self, out: str) -> str:
        return (self.work / f"{out}.txt").read_text()

    def checkpoints(self) -> list[Path]:
        return sorted((self.work / "checkpoints" / self.stage / self.target).glob("*.pt"))

    def differences(self, out: str) -> list[str]:
        """What a finished job differs in from the undisturbed one, durations left out."""
        one, two = self.work / "whole", self.work / out
        weights = "supernet.pt" if self.stage == "search" else "weights.pt"
        found = [n for n in (weights, "metrics.json") if (one / n).read_bytes() != (two / n).read_bytes()]
        return found if rows(one / "history.csv") == rows(two / "history.csv") else [*found, "history.csv"]


def job_of(options: argparse.Namespace, work: Path) -> Job:
    """The job that the options ask for, with its parameters and the files that they name in its folder."""
    shutil.copy(options.params, work / "params.yaml")
    if (own := options.params.resolve().parent / "inputs").is_dir():
        shutil.copytree(own, work / "inputs")
    target = options.target or next(iter(load_params(options.params).targets))
    return Job(options.stage, work, options.results.resolve(), target)


def kill_searches(options: argparse.Namespace, work: Path) -> list[str]:
    """As many searches as the kills need, each killed at random moments; the faults."""
    job, draw = job_of(options, work), random.Random(options.seed)
    begin = time.monotonic()
    if job.start("whole").wait() != 0:
        sys.exit(job.said("whole"))
    seconds = time.monotonic() - begin
    print(f"undisturbed: {seconds:.1f} s", flush=True)
    kills, faults, number = 0, list[str](), 0
    epochs = len(rows(work / "whole" / "history.csv"))
    while kills < options.kills:
        number += 1
        out = f"killed{number}"
        killed = kill_until_it_ends(job, out, options.kills - kills, lambda: draw.uniform(0.0, 0.6 * seconds))
        kills += killed
        found = job.differences(out) + tracking_faults(work / f"{out}.db", epochs)
        faults += found
        print(f"search {number}: killed {killed} times, differences: {', '.join(found) or 'none'}", flush=True)
    return faults


def kill_until_it_ends(job: Job, out: str, most: int, draw_wait: Callable[[], float]) -> int:
    """How many times a search was killed before it ended; at most `most` times."""
    kills = 0
    while True:
        process = job.start(out)
        try:
            wait = draw_wait() if kills < most else None
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            files = job.checkpoints()
            saved = len(read_tensors(files[-1])["state"]["history"]) if files else 0
            print(f"  killed after {wait:.2f} s, {saved} epochs saved", flush=True)
            continue
        assert process.returncode == 0, job.said(out)
        return kills


def tracking_faults(store: Path, epochs: int) -> list[str]:
    """Whether one run has every epoch exactly once, and no other run has any.

    A job that is killed before it has saved anything leaves a run without epochs, and nothing to take that run up by.
    """
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{store}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    histories = [client.get_metric_history(run.info.run_id, "train_loss") for run in runs]
    steps = [steps for history in histories if (steps := [metric.step for metric in history if metric.step])]
    return [] if steps == [list(range(1, epochs + 1))] else [f"epochs {steps} in {len(runs)} MLflow runs"]


def kill_a_retraining(options: argparse.Namespace, work: Path) -> list[str]:
    """One retraining, killed in each of as many equal parts as there are kills; the faults."""
    job, draw = job_of(options, work), random.Random(options.seed)
    set_param(work, "retrain.checkpoint_every_steps", options.every)
    set_param(work, "retrain.teacher.network", options.teacher)
    begin = time.monotonic()
    saves = watch(job, job.start("whole"), until=None)
    print(f"undisturbed: {saves} checkpoints in {time.monotonic() - begin:.1f} s", flush=True)
    moments = [(saves - 3) * (part + draw.random()) / options.kills for part in range(options.kills)]
    kill_at(job, [1 + int(moment) for moment in moments], draw.random)
    found = job.differences("killed")
    print(f"differences: {', '.join(found) or 'none'}", flush=True)
    return found


def watch(job: Job, process: subprocess.Popen[bytes], *, until: int | None) -> int:
    """Wait for the end of the process, or until so many checkpoints were saved; gives how many were."""
    saves = 0
    while process.poll() is None and (until is None or saves < until):
        time.sleep(POLL_SECONDS)
        # CheckpointFolder counts them in their names, also over several processes
        saves = max([saves, *(int(path.stem.rpartition("-")[2]) for path in job.checkpoints())])
    return saves


def kill_at(job: Job, moments: list[int], draw: Callable[[], float]) -> None:
    """Kill the training soon after each of these numbers of checkpoints, and let it resume to its end."""
    for moment in moments:
        process = job.start("killed")
        watch(job, process, until=moment)
        time.sleep(AFTER_SECONDS * draw())
        assert process.poll() is None, f"it ended before its checkpoint {moment}: {job.said('killed')}"
        process.kill()
        process.wait()
        progress = read_tensors(job.checkpoints()[-1])["state"]["progress"]
        where = f"epoch {len(progress['history'])}, step {progress['step']}"
        print(f"killed at checkpoint {moment}: resumes after {where}", flush=True)
    process = job.start("killed")
    assert process.wait() == 0, job.said("killed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="stage", required=True)
    run = commands.add_parser("run", help="a whole run")
    run.add_argument("--longest", type=float, default=30.0, help="seconds from the first output to a kill, at most")
    run.add_argument("--command", default="make run", help="the one command (default: make run)")
    run.add_argument("--work", type=Path, help="folder for the runs; those that are there are used, or resumed")
    search, retrain = (
        commands.add_parser("search", help="a search"),
        commands.add_parser("retrain", help="a retraining"),
    )
    retrain.add_argument("--every", type=int, default=3, help="steps between two checkpoints (default: 3)")
    retrain.add_argument("--teacher", default="none", help="retrain.teacher.network (default: none)")
    for job in (search, retrain):
        job.add_argument("--params", type=Path, default=Path("params.yaml"))
        job.add_argument("--results", type=Path, default=Path("results"))
        job.add_argument("--target", help="default: the first one")
    for command, kills, kill in ((run, 20, kill_runs), (search, 10, kill_searches), (retrain, 5, kill_a_retraining)):
        command.add_argument("--kills", type=int, default=kills)
        command.add_argument("--seed", type=int, default=0, help="of the moments")
        command.set_defaults(kill=kill)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = getattr(options, "work", None) or Path(temporary)
        work.mkdir(exist_ok=True)
        sys.exit(1 if options.kill(options, work) else 0)


if __name__ == "__main__":
    main()
