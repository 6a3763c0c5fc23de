"""ExecuTorch with XNNPACK, PyTorch's runtime for phones, on this CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tfnas.jobs.artifacts import atomic_path
from tfnas.latency.backends.converted import ConvertingBackend, for_export, quietly


class ExecuTorch(ConvertingBackend):
    """Exports each module and hands all of it to XNNPACK; nearly two seconds of CPU time per block, so files are kept.

    Images are channels-last in memory, as XNNPACK computes: otherwise each block would begin and end with a
    transposition that a whole network does not have.
    """

    name = package = "executorch"
    suffix = "pte"

    @classmethod
    def write(cls, module: nn.Module, example: Tensor, path: Path) -> None:
        """Write a .pte program for images in channels-last memory."""
        from executorch.exir import to_edge_transform_and_lower

        with for_export(module, example) as (copy, images), quietly():
            program = torch.export.export(copy, (_channels_last(images),))
            lowered = to_edge_transform_and_lower(program, partitioner=[_partitioner()]).to_executorch()
        with atomic_path(path) as temporary:
            temporary.write_bytes(lowered.buffer)

    @classmethod
    def load(cls, path: Path, *, threads: int) -> _Loaded:
        _set_threads(threads)
        return _Loaded(path)


class _Loaded:
    """A program's `forward`, and one input."""

    def __init__(self, path: Path) -> None:
        from executorch.runtime import Runtime

        self._program = Runtime.get().load_program(path)
        self._execute = self._program.load_method("forward").execute

    def set_input(self, images: np.ndarray) -> None:
        self._inputs = (_channels_last(torch.from_numpy(images)),)

    def __call__(self) -> _Loaded:
        self._outputs = self._execute(self._inputs)
        return self

    def output(self) -> np.ndarray:
        return np.ascontiguousarray(self._outputs[0].numpy())


def _set_threads(threads: int) -> None:
    """Make XNNPACK's pool, one per process, that large. A program keeps the pool that it was loaded with.

    ExecuTorch calls the reset unsafe, since programs loaded before must not run afterwards; a profile or an export has
    one number of threads.
    """
    from executorch.extension.pybindings import portable_lib

    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)


def _channels_last(images: Tensor) -> Tensor:
    return images.to(memory_format=torch.channels_last) if images.ndim == 4 else images


def _partitioner() -> Any:
    """XNNPACK's, without the look at the call stack, which takes seconds, for a warning about an old function."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class Partitioner(XnnpackPartitioner):  # type: ignore[misc]
        def _check_if_called_from_to_backend(self) -> bool:
            return False

    return Partitioner()
