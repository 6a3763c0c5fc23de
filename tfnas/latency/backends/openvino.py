"""OpenVINO on the CPU, Intel's runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tfnas.jobs.extras import require
from tfnas.latency import quantization
from tfnas.latency.backends.converted import ConvertingBackend, move_pair
from tfnas.latency.backends.onnx_runtime import export_static_onnx
from tfnas.latency.backends.registry import BackendOptions
from tfnas.latency.quantization import INT8, quantize_openvino


class OpenVino(ConvertingBackend):
    """Reads each module as ONNX and compiles it for one shape, which together take a tenth of a second per block.

    Nothing is kept between visits: writing and reading a file would take as long. In int8 NNCF quantizes the module
    first, which takes half a second, so that these files are kept; their input and output stay float32.
    """

    name = package = "openvino"
    suffix = "xml"
    weights_apart = True
    precisions: ClassVar[tuple[str, ...]] = ("float32", INT8)

    def __init__(self, options: BackendOptions | None = None) -> None:
        super().__init__(options)
        if self.options.precision == INT8:
            require("openvino-int8", by=f"profile_latency.precision: int8 with the backend {self.name}")

    @property
    def version(self) -> str:
        return super().version if self.options.precision != INT8 else f"{super().version}, nncf {version('nncf')}"

    @property
    def keeps(self) -> bool:
        return self.options.precision == INT8

    def code(self) -> list[str]:
        return [*super().code(), quantization.__file__]

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        if self.options.precision == INT8:
            loaded = self.load(self.keep(module, example), threads=self.options.threads)
        else:
            model = _core().read_model(export_static_onnx(module, example))
            loaded = _Loaded(_compile(model, self.options.threads))
        loaded.set_input(example.numpy())
        return loaded

    @classmethod
    def write(cls, module: nn.Module, example: Tensor, path: Path) -> None:
        """Write OpenVINO's intermediate representation: an .xml file, and the weights in a .bin file."""
        cls.save(_core().read_model(export_static_onnx(module, example)), path)

    def convert(self, module: nn.Module, example: Tensor, path: Path) -> None:
        if self.options.precision == INT8:
            self.write_int8(module, [example.numpy()], path)
        else:
            super().convert(module, example, path)

    @classmethod
    def write_int8(cls, module: nn.Module, batches: Iterable[np.ndarray], path: Path) -> None:
        """As `write`, quantized.

        Args:
            batches: calibration inputs, (1, C, H, W) each.

        Raises:
            UserError: a convolution or matrix product would stay in float32.
        """
        images = list(batches)
        model = _core().read_model(export_static_onnx(module, torch.from_numpy(images[0])))
        cls.save(quantize_openvino(model, images, what="the network"), path)

    @classmethod
    def save(cls, model: Any, path: Path) -> None:
        """Put a model's two files at `path`; atomically."""
        import openvino as ov

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
    """One request at a time; what is not quantized in float32, also where the CPU computes bfloat16."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    return _core().compile_model(model, "CPU", settings)
