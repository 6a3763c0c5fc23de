"""Everything that depends on the device, CPU or CUDA: opening it, timing on it, and claiming a GPU for each job."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import logging
import math
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tfnas.compute import distributed
from tfnas.jobs.errors import UserError
from tfnas.jobs.progress import announce

if TYPE_CHECKING:
    import numpy as np
    import torch

INTERRUPTED_SECONDS, INTERRUPTED_SHARE = 50e-6, 0.03  # of a call: less is due to clocks and caches
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h

logger = logging.getLogger("tfnas.devices")
VISIBLE = "CUDA_VISIBLE_DEVICES"
_claimed: list[IO[str]] = []  # open, so locked, until this process ends


def open_device(name: str, threads: int) -> torch.device:
    """The torch device of that name; sets the number of CPU threads.

    Where torchrun has started several processes, `cuda` is each one's own GPU.

    Raises:
        UserError: CUDA is requested but absent.
    """
    import torch

    warn_of_threads(threads)
    torch.set_num_threads(threads)
    if name == "cuda" and distributed.world_size() > 1:
        name = f"cuda:{distributed.local_rank()}"
    if name == "cpu":
        keep_freed_memory()
    return find_device(name, source="params.yaml: device")


def find_device(name: str, *, source: str) -> torch.device:
    """The torch device of that name; `source` says in the error where the name was given.

    Raises:
        UserError: not the name of a device, or CUDA is requested but absent.
    """
    import torch

    if not (match := re.fullmatch(r"cpu|cuda(?::(\d+))?", name)):
        raise UserError(f"{source} {name!r}: write cpu, cuda or cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(f"{source} {name!r}: this machine has no usable CUDA device; write cpu")
    if match[1] and int(match[1]) >= torch.cuda.device_count():
        raise UserError(f"{source} {name!r}: this machine has {torch.cuda.device_count()}, counted from cuda:0")
    return torch.device(name)


@cache
def warn_of_threads(threads: int) -> None:
    """Say once that there are more threads than CPUs to run them, which is slow and makes latencies worthless."""
    if threads > (cpus := allowed_cpus()):
        announce(logger, f"{threads} threads share the {cpus} CPUs that this process may use, and slow each other")


def allowed_cpus() -> int:
    """CPUs that this process may use: fewer than are installed under `taskset`, in containers and in batch jobs."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cpus = os.cpu_count() or 1
    return max(1, min([cpus, *_cpu_quotas()]))


def _cpu_quotas(folder: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """CPUs that a container's time limit amounts to, rounded up; none without a limit."""
    quotas = []
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # of cgroup 2 and 1
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                quotas.append(math.ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return quotas


def keep_freed_memory() -> None:
    """Let this process reuse the memory that it frees (with glibc; elsewhere this does nothing).

    By default glibc returns large blocks to the system at once, so every training step asks for its tensors' memory
    again, and the system fills it with zeros, page by page.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)  # no blocks outside the heap
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # the heap never shrinks


def claim_gpu(device: str) -> str | None:
    """Claim a GPU that no other tfnas job on this machine has; call it before torch looks for CUDA.

    Otherwise two jobs running at once on `cuda` would both use the first GPU.

    Returns:
        The GPU; None where there is no choice (cpu, cuda:N, torchrun, one GPU), or where all are taken.
    """
    if device != "cuda" or distributed.world_size() > 1 or len(gpus := visible_gpus()) < 2:
        return None
    for gpu in gpus:
        file = (Path(tempfile.gettempdir()) / f"tfnas-{os.getuid()}-gpu-{gpu}.lock").open("a", encoding="utf-8")
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _claimed.append(file)
            os.environ[VISIBLE] = gpu
            return gpu
        file.close()
    logger.warning("all of the GPUs %s are in use by other jobs; this one shares the first", ", ".join(gpus))
    return None


def visible_gpus() -> list[str]:
    """The GPUs that a process started here may use, by number or UUID as CUDA_VISIBLE_DEVICES takes them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name and name != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


def device_name(name: str) -> str:
    """A name that a person recognizes: the GPU's, or the CPU's model."""
    if name.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(name)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cpu_governor() -> str | None:
    """How the operating system sets the CPU's frequency (`performance`, `powersave`, ...), where known."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision of the forward pass; nothing for float32."""
    import torch

    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_calls(device: torch.device, run: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each of `repeats` calls of `run`, one straight after the other.

    On CUDA the time between events recorded after each call: the kernels queue up as they do inside a
    network, and the host waits once, at the end.
    """
    if device.type == "cuda":
        return _time_cuda_calls(device, run, repeats)
    times = [time.perf_counter()]
    for _ in range(repeats):
        run()
        times.append(time.perf_counter())
    return [1000.0 * (end - start) for start, end in itertools.pairwise(times)]


def _time_cuda_calls(device: torch.device, run: Callable[[], object], repeats: int) -> list[float]:
    import torch

    with torch.cuda.device(device):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in itertools.pairwise(events)]


def time_sequence(
    device: torch.device, runs: Sequence[Callable[[], object]], repeats: int, *, here: bool = True
) -> np.ndarray:
    """Milliseconds of each call when `runs` are called one after the other, `repeats` times; (repeats, len(runs)).

    On the CPU, when the operating system preempts a call, its CPU time is used instead of wall time. On CUDA, the time
    between events, as in `time_calls`.

    Args:
        here: whether the calls compute in this thread; elsewhere, preemption cannot be detected.
    """
    import numpy as np

    if device.type == "cuda":
        calls = itertools.cycle(runs)
        times = _time_cuda_calls(device, lambda: next(calls)(), repeats * len(runs))
        return np.reshape(times, (repeats, len(runs)))
    wall, computed = np.empty((repeats, len(runs))), np.empty((repeats, len(runs)))
    for repeat in range(repeats):
        for place, run in enumerate(runs):
            start, start_computed = time.perf_counter(), time.thread_time()
            run()
            computed[repeat, place] = time.thread_time() - start_computed
            wall[repeat, place] = time.perf_counter() - start
    interrupted = wall - computed > INTERRUPTED_SECONDS + INTERRUPTED_SHARE * wall
    return 1000.0 * np.where(interrupted & here, computed, wall)
