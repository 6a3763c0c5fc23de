"""Several processes on one job, as torchrun starts them; with a single process, every function here does nothing.

torchrun tells each process who it is by environment variables (RANK, LOCAL_RANK, WORLD_SIZE).

N batch of one process, C channels, H W size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # every script imports this file before it has looked at its options
    import torch
    from torch import Tensor


def rank() -> int:
    """Which of the processes this one is; the first, 0, writes files and logs."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Which of the processes on this machine this one is: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """How many processes work on the job."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes: NCCL between GPUs, gloo between CPUs."""
    if world_size() == 1:
        yield
        return
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_active() -> bool:
    """Whether processes are connected."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def group_size() -> int:
    """How many processes are connected; 1 where none are."""
    return world_size() if is_active() else 1


def total(values: Tensor) -> Tensor:
    """The sum over all processes, without gradient; the same bits in each."""
    if not is_active():
        return values
    import torch.distributed as dist

    values = values.clone()
    dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean over all processes, without gradient; the same bits in each."""
    return total(values) / world_size() if is_active() else values


def copy_first(values: Tensor) -> None:
    """Overwrite `values` in every process with the first one's."""
    if is_active():
        import torch.distributed as dist

        dist.broadcast(values, src=0)


def gather(value: Any) -> list[Any]:
    """Every process's value, in their order, in each of them."""
    if not is_active():
        return [value]
    import torch.distributed as dist

    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace the gradients by their means over all processes, which must have gradients of the same parameters."""
    if not is_active():
        return
    import torch

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def check_equal(what: str, values: Any) -> None:
    """Stop all processes where they differ in `values` (anything with a `repr` that tells values apart).

    Raises:
        RuntimeError: they differ, which is a fault of ours or of a machine.
    """
    found = gather(repr(values))
    if any(other != found[0] for other in found):
        raise RuntimeError(f"{what} differ between the {world_size()} processes of this job")


def statistics_over_processes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C, H, W) to x minus its mean, the mean (C,) and the biased variance (C,), over all processes' batches.

    For BatchNorm; the batches have equal sizes. The variance is taken about the mean, so that no digits cancel out.
    """
    from tfnas.compute.averaging import MeanOverProcesses as _Mean

    mean: Tensor = _Mean.apply(x.mean((0, 2, 3)))
    centered = x - mean[:, None, None]
    variance: Tensor = _Mean.apply(centered.square().mean((0, 2, 3)))
    return centered, mean, variance
