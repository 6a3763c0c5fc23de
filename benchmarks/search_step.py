"""Time, memory and tensor operations of a search's steps against the authors' code, 224 x 224, Table 1's space.

python benchmarks/search_step.py --authors FOLDER                        # a checkout of github.com/AberHu/TF-NAS
python benchmarks/search_step.py --batch 32 --precision bfloat16         # without it: a plain form of the same cost
python benchmarks/search_step.py --only counts

Each form works in a process of its own, ours with the allocator settings of a search job, and only one at a time: a
round is, for each form in turn, a fresh process that warms up and takes some weight steps (bi-sampling) and
architecture steps. Times are medians over all rounds; memory is the largest peak of the processes.

Forms: `ours` has separate weights for each operation (`search.weight_sharing: none`), `entangled` shares them;
`recompute` keeps no activations; `entangled-one` computes one operation per layer in architecture steps, too
(`search.architecture.paths: one`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMS = ("theirs", "ours", "recompute", "entangled", "entangled-recompute", "entangled-one")
STEPS = ("weight_step", "architecture_step")
VIEWS = {"alias", "as_strided", "detach", "expand", "narrow", "permute", "select", "slice", "split"}
VIEWS |= {"squeeze", "t", "transpose", "unbind", "unsqueeze", "view"}


class Form:
    """A worker process: give it the name of a step, and it says what that took."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        command = [
            sys.executable,
            __file__,
            "--worker",
            name,
            "--batch",
            str(options.batch),
            "--threads",
            str(options.threads),
        ]
        command += ["--precision", options.precision]
        command += ["--authors", str(options.authors)] if options.authors else []
        command += ["--only", options.only] if options.only else []
        command += ["--default-allocator"] if options.default_allocator else []
        # threads that wait for each other sleep, so that the CPU time of several is what they computed
        env = os.environ | ({"OMP_WAIT_POLICY": "passive"} if options.clock == "cpu" else {})
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, what: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def work(options: argparse.Namespace) -> None:
    """The worker's side."""
    import torch
    from search_step_variants import build

    from tfnas.compute.devices import open_device
    from tfnas.search import fused

    if options.worker == "theirs" or options.default_allocator:
        torch.set_num_threads(options.threads)
    else:
        open_device("cpu", options.threads)
    if options.only == "counts":
        fused.JOINED_VALUES = sys.maxsize  # count what a GPU is given: operations of one kernel size joined
    steps = build(options.worker, options.batch, options.precision, options.authors)
    for line in sys.stdin:
        what, _, how = line.strip().partition(" ")
        if what == "peak":
            print(json.dumps(peak_gb()), flush=True)
            continue
        step = getattr(steps, what)
        run = {"count": count_operations, "profile": profile, "": seconds, "cpu": cpu_seconds}[how]
        print(json.dumps(run(step)), flush=True)


def seconds(step: Any, clock: Callable[[], float] = time.perf_counter) -> float:
    begin = clock()
    step()
    return clock() - begin


def cpu_seconds(step: Any) -> float:
    return seconds(step, time.process_time)


def count_operations(step: Any) -> tuple[int, int]:
    """Tensor operations dispatched, all and without views, forward and backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    names: Counter[str] = Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names[function.name().split("::")[1].split(".")[0]] += 1
            return function(*args, **(kwargs or {}))

    with Counting():
        step()
    return names.total(), sum(count for name, count in names.items() if name not in VIEWS)


def profile(step: Any) -> dict[str, float]:
    """Share of each kind of operation in the step's own time, in percent."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    kinds = {"convolution": ("conv", "aten::mm", "addmm", "bmm"), "BatchNorm": ("batch_norm",)}
    kinds["element-wise"] = (
        "silu",
        "relu",
        "sigmoid",
        "threshold",
        "clamp",
        "mul",
        "add",
        "div",
        "sum",
        "mean",
        "copy",
    )
    shares: Counter[str] = Counter()
    with record(activities=[ProfilerActivity.CPU]) as found:
        step()
    for row in found.key_averages():
        named = row.key.lower() if row.key.startswith("aten::") else ""
        kind = next((kind for kind, parts in kinds.items() if any(part in named for part in parts)), "rest")
        shares[kind] += row.self_cpu_time_total
    return {kind: 100 * value / shares.total() for kind, value in shares.most_common()}


def peak_gb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def steps(options: argparse.Namespace) -> None:
    """Times, peaks and profiles."""
    forms = options.forms
    found: dict[tuple[str, str], list[float]] = {(name, step): [] for name in forms for step in STEPS}
    peaks, before, profiles = dict.fromkeys(forms, 0.0), dict.fromkeys(forms, 0.0), dict[str, dict[str, float]]()
    for _ in range(options.rounds):
        for name in forms:
            form = Form(name, options)
            before[name] = form.ask("peak")
            for turn in range(options.steps + 1):
                for step in STEPS:
                    taken = form.ask(f"{step} cpu" if options.clock == "cpu" else step)
                    if turn:  # the first warms up
                        found[name, step].append(taken)
            peaks[name] = max(peaks[name], form.ask("peak"))
            profiles[name] = form.ask("architecture_step profile")
            form.close()
    medians = {key: statistics.median(values) for key, values in found.items()}
    print(f"{'':20} {'weight step':>14} {'architecture':>14} {'together':>14}   first / this")
    for name in forms:
        own, theirs = ([medians[one, step] for step in STEPS] for one in (name, forms[0]))
        ratios = [a / b for a, b in zip((*theirs, sum(theirs)), (*own, sum(own)), strict=True)]
        cells = " ".join(f"{value:12.3f} s" for value in (*own, sum(own)))
        print(f"{name:20} {cells}   " + " ".join(f"{r:.2f}" for r in ratios))
    for name in forms:
        share = 100 * peaks[name] / peaks[forms[0]]
        above = peaks[name] - before[name]
        share_above = 100 * above / (peaks[forms[0]] - before[forms[0]])
        print(
            f"{name:20} peak memory {peaks[name]:.2f} GB ({share:.0f} % of the first),"
            f" {above:.2f} GB above the process before its first step ({share_above:.0f} %)"
        )
    for name, shares in profiles.items():
        pure = medians[name, STEPS[1]] * shares["convolution"] / 100
        kinds = ", ".join(f"{kind} {share:.0f} %" for kind, share in shares.items())
        print(f"{name:20} architecture step: {kinds}; its convolutions and matrix products alone {pure:.3f} s")


def counts(options: argparse.Namespace) -> None:
    options.only = "counts"
    for name in options.forms:
        form = Form(name, options)
        for step in STEPS:
            everything, without_views = form.ask(f"{step} count")
            print(f"{name:20} {step:18} {everything} tensor operations, {without_views} without views")
        form.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, help="folder of the authors' code")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of each kind in a round")
    parser.add_argument(
        "--clock", default="wall", choices=["wall", "cpu"], help="cpu: of all threads, on a busy machine"
    )
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS, help="the first is compared with")
    parser.add_argument("--only", choices=["steps", "counts"])
    parser.add_argument("--default-allocator", action="store_true", help="ours without the settings of a search job")
    parser.add_argument("--worker", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    print(f"batch {options.batch}, {options.precision}, {options.threads} threads, {options.clock} time", flush=True)
    for part in (steps, counts):
        if options.only in (None, part.__name__):
            part(options)


if __name__ == "__main__":
    main()
