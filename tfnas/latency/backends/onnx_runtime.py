"""ONNX Runtime on the CPU, the most common runtime for deployment there."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tfnas.jobs.artifacts import atomic_path
from tfnas.jobs.extras import require
from tfnas.latency import quantization
from tfnas.latency.backends.kept import kept_file
from tfnas.latency.backends.registry import BackendOptions, refuse_other_than_cpu
from tfnas.latency.quantization import INT8, quantize_onnx, within_network

OPSET = 17
INPUT, OUTPUT = "image", "output"


class OnnxRuntime:
    """Exports each module, loads it with all graph optimizations, and runs it on bound input and output.

    Binding saves the 1.5 microseconds that copying names and results into Python takes; with it, an empty model
    takes 2 microseconds a run (PyTorch: 3).

    In int8, a module inside of a network takes and gives 8 bits (`tfnas.latency.quantization.within_network`), and the
    quantized file is kept.
    """

    name = "onnx-runtime"
    precisions: ClassVar[tuple[str, ...]] = ("float32", INT8)
    here = True

    def __init__(self, options: BackendOptions | None = None) -> None:
        self.options = options or BackendOptions()
        require("onnx", by=f"profile_latency.backend: {self.name}")
        refuse_other_than_cpu(self.options, self.name, precisions=self.precisions)

    @property
    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    @property
    def keeps(self) -> bool:
        return self.options.precision == INT8

    def keep(self, module: nn.Module, example: Tensor) -> Path:
        """The quantized module, from the cache if this very one was quantized before: that takes a second or two."""
        model, of = export_static_onnx(module, example), f"{self.name} {self.version} {self.options.precision}"

        def write(path: Path) -> None:
            with atomic_path(path) as unfinished:
                unfinished.write_bytes(within_network(quantize_onnx(model, [example.numpy()])))

        return kept_file(model, of=of, suffix="onnx", make=write, code=[__file__, quantization.__file__])

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        import onnxruntime as ort

        model = self.keep(module, example).read_bytes() if self.keeps else export_static_onnx(module, example)
        session, images = open_session(model, threads=self.options.threads), example.numpy()
        given = session.get_inputs()[0]
        if given.type == "tensor(uint8)":  # any values will do
            images = np.random.default_rng(0).integers(0, 256, given.shape, dtype=np.uint8)
        binding = session.io_binding()
        binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(images))
        binding.bind_output(OUTPUT, "cpu")
        return partial(_run, session, binding)


def open_session(model: bytes | str, *, threads: int) -> Any:
    """ONNX Runtime's session of a model, in bytes or by its file's name, on the CPU with all graph optimizations."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = 3
    return ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def _run(session: object, binding: object) -> object:
    session.run_with_iobinding(binding)  # type: ignore[attr-defined]
    return binding  # its outputs stay in it


def export_static_onnx(module: nn.Module, example: Tensor) -> bytes:
    """The module as an ONNX model of one static shape, with one input `image` and one output `output`.

    Uses PyTorch's TorchScript exporter, which takes 10 to 20 ms per block; the newer one takes seconds.
    BatchNorm becomes part of the convolutions.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the older exporter
        torch.onnx.export(
            module,
            (example,),
            file,  # type: ignore[arg-type]  # its types leave out the file objects that it takes
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    return file.getvalue()
