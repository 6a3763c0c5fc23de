"""LiteRT (TensorFlow Lite) with XNNPACK, Google's runtime for phones, on this CPU."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from tfnas.jobs.artifacts import atomic_path
from tfnas.jobs.errors import UserError
from tfnas.latency.backends.converted import ConvertingBackend, for_export, quietly

MODULES = ("litert_torch", "ai_edge_litert", "litert_converter", "jax")
WAY_TO_INSTALL = "docs/own-device.md#litert has the command that installs it"  # pip cannot resolve it next to pydantic


class LiteRt(ConvertingBackend):
    """Converts each module with litert-torch; two seconds of CPU time per block, so files are kept.

    Inputs and outputs are (N, H, W, C), as in TensorFlow: otherwise each block would begin and end with a transposition
    that a whole network does not have.
    """

    name = "litert"
    package, converter = "ai-edge-litert", "litert-torch"
    suffix = "tflite"

    @classmethod
    def check_installed(cls, *, by: str) -> None:
        missing = next((module for module in MODULES if find_spec(module) is None), None)
        if missing is not None:
            raise UserError(f"{by}: needs {missing}, which is not installed; {WAY_TO_INSTALL}")

    @classmethod
    def write(cls, module: nn.Module, example: Tensor, path: Path) -> None:
        """Write a .tflite model of (N, H, W, C) images; of (N, H, W, C) outputs too where the module has such."""
        os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
        import litert_torch

        with for_export(module, example) as (copy, images), quietly():
            outputs = [0] if copy(images).ndim == 4 else []
            wrapped = litert_torch.to_channel_last_io(copy, args=[0], outputs=outputs).eval()
            model = litert_torch.convert(wrapped, (images.permute(0, 2, 3, 1).contiguous(),))
        with atomic_path(path) as temporary:
            model.export(str(temporary))

    @classmethod
    def load(cls, path: Path, *, threads: int) -> _Loaded:
        return _Loaded(path, threads)


class _Loaded:
    """An interpreter, and its input."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._invoke = self._interpreter.invoke

    def set_input(self, images: np.ndarray) -> None:
        (place,) = self._interpreter.get_input_details()
        self._interpreter.set_tensor(place["index"], np.ascontiguousarray(images.transpose(0, 2, 3, 1)))

    def __call__(self) -> _Loaded:
        self._invoke()
        return self

    def output(self) -> np.ndarray:
        (place,) = self._interpreter.get_output_details()
        found = self._interpreter.get_tensor(place["index"])
        return np.ascontiguousarray(found.transpose(0, 3, 1, 2)) if found.ndim == 4 else found
