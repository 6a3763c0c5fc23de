"""How long each stage's script takes to start: until it has checked everything, opened its tracking run and logged.

    python benchmarks/pipeline/start_up.py PROJECT [--repeats 3]

PROJECT is a folder in which the pipeline has run (`make run`). It is copied; in the copy every job's command of
dvc.lock is started and ended when its log has its first line. The work is what the logs of the finished run say.
Printed: seconds of start-up (least of the repeats; and of computing, which other programs disturb less) and of work of
each job, and start-up's share in the sum of both.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import yaml

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".dvc", ".snakemake", "tests")
STEP_SECONDS = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    stages = yaml.safe_load((options.project / "dvc.lock").read_text())["stages"]
    commands = {name: shlex.split(stage["cmd"]) for name, stage in stages.items()}
    started, worked = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "project"
        shutil.copytree(options.project, copy, ignore=LEFT_OUT)
        for name, command in commands.items():
            log = Path(command[command.index("--log") + 1])
            worked[name] = work_seconds(options.project / log)
            started[name] = min(start_up_seconds(command, copy, copy / log) for _ in range(options.repeats))
            print(line(name, *started[name], worked[name]), flush=True)
    wall, computing = (sum(seconds) for seconds in zip(*started.values(), strict=True))
    work = sum(worked.values())
    print(line("sum", wall, computing, work), f"= {100 * wall / (wall + work):.1f} %")


def line(name: str, wall: float, computing: float, work: float) -> str:
    return f"{name:32} start-up {wall:6.2f} s ({computing:5.2f} s computing)   work {work:6.1f} s"


def start_up_seconds(command: list[str], folder: Path, log: Path) -> tuple[float, float]:
    """Until the log has a line: seconds by the clock, and of computing."""
    log.unlink(missing_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    begin = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "PATH": path}, stderr=subprocess.PIPE) as process:
        while not (log.exists() and log.stat().st_size):
            if process.poll() is not None:
                sys.exit(f"{' '.join(command)} ended: {process.stderr.read().decode() if process.stderr else ''}")
            time.sleep(STEP_SECONDS)
        seconds = time.perf_counter() - begin
        process.kill()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = -signal.SIGKILL
    return seconds, usage.ru_utime + usage.ru_stime


def work_seconds(log: Path) -> float:
    """From the first line of a log to the last."""
    times = [datetime.fromisoformat(line[:19]) for line in log.read_text().splitlines() if line[:4].isdigit()]
    return (times[-1] - times[0]).total_seconds()


if __name__ == "__main__":
    main()
