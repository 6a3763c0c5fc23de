"""OpenVINO on the CPU, Intel's runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from tfnas.latency.backends.converted import ConvertingBackend, move_pair
from tfnas.latency.backends.onnx_runtime import export_static_onnx


class OpenVino(ConvertingBackend):
    """Reads each module as ONNX and compiles it for one shape, which together take a tenth of a second per block.

    Nothing is kept between visits: writing and reading a file would take as long.
    """

    name = package = "openvino"
    suffix = "xml"
    weights_apart = True

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        compiled = _compile(_core().read_model(export_static_onnx(module, example)), self.options.threads)
        loaded = _Loaded(compiled)
        loaded.set_input(example.numpy())
        return loaded

    @classmethod
    def write(cls, module: nn.Module, example: Tensor, path: Path) -> None:
        """Write OpenVINO's intermediate representation: an .xml file, and the weights in a .bin file."""
        import openvino as ov

        model = _core().read_model(export_static_onnx(module, example))
        with tempfile.TemporaryDirectory() as folder:
            xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
            ov.serialize(model, str(xml), str(weights))
            move_pair(xml, weights, path)

    @classmethod
    def load(cls, path: Path, *, threads: int) -> _Loaded:
        return _Loaded(_compile(_core().read_model(str(path), str(path.with_suffix(".bin"))), threads))


class _Loaded:
    """A compiled model with one request, bound to one input."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._infer = self._request.infer

    def set_input(self, images: np.ndarray) -> None:
        import openvino as ov

        self._images = np.ascontiguousarray(images)  # the tensor does not own it
        self._request.set_input_tensor(ov.Tensor(self._images, shared_memory=True))

    def __call__(self) -> _Loaded:
        self._infer(share_outputs=True)
        return self

    def output(self) -> np.ndarray:
        return np.array(self._request.get_output_tensor().data)


@cache
def _core() -> Any:
    import openvino as ov

    return ov.Core()


def _compile(model: Any, threads: int) -> Any:
    """One request at a time in float32, also where the CPU computes bfloat16."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    return _core().compile_model(model, "CPU", settings)
