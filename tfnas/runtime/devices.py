"""The seam between CPU and CUDA: everything device-specific is in this file."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.runtime.errors import UserError

if TYPE_CHECKING:
    import torch


def open_device(name: str, threads: int) -> torch.device:
    """The torch device of that name; sets the number of CPU threads.

    Raises:
        UserError: CUDA is asked for and absent.
    """
    import torch

    torch.set_num_threads(threads)
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"params.yaml: device {name!r}: this machine has no usable CUDA device; write cpu")
    return torch.device(name)


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


def device_name(name: str) -> str:
    """A name a person recognises: the GPU's, or the CPU's model."""
    if name.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(name)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
