"""A latency backend for tfnas: TensorRT on an NVIDIA GPU.

NOT RUN: it is written by TensorRT's documentation and tested against a fake `tensorrt`, never yet with the real one.

Each module becomes an ONNX model of one shape, of which TensorRT builds an engine: seconds per block, since it times
several kernels for each layer. Expect hours for the full space; engines are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tfnas.jobs.errors import UserError
from tfnas.latency.backends import BackendOptions
from tfnas.latency.backends.onnx_runtime import INPUT, OUTPUT, export_static_onnx

PRECISIONS = {"float32": torch.float32, "float16": torch.float16}


class TensorRtBackend:
    """Runs engines in torch's current stream, so that tfnas times them with CUDA events as it does PyTorch."""

    name = "tensorrt"

    def __init__(self, options: BackendOptions) -> None:
        if not options.device.startswith("cuda"):
            raise UserError(f"profile_latency.device: {options.device}: tensorrt is for NVIDIA GPUs; write cuda")
        if options.precision not in PRECISIONS:
            raise UserError(f"profile_latency.precision: {options.precision}: tensorrt takes {', '.join(PRECISIONS)}")
        if options.channels_last:
            raise UserError("profile_latency.channels_last: true: TensorRT chooses its own memory layout; write false")
        try:
            import tensorrt
        except ImportError:
            raise UserError("profile_latency.backend: tensorrt is not installed; pip install tensorrt") from None
        self._tensorrt, self._type = tensorrt, PRECISIONS[options.precision]
        self._logger = tensorrt.Logger(tensorrt.Logger.ERROR)

    @property
    def version(self) -> str:
        return str(self._tensorrt.__version__)

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        module, example = module.to(self._type), example.to(self._type)
        with torch.inference_mode():
            output = torch.empty_like(module(example))
        engine = self._build(export_static_onnx(module, example))
        context = engine.create_execution_context()
        context.set_tensor_address(INPUT, example.data_ptr())
        context.set_tensor_address(OUTPUT, output.data_ptr())

        def run() -> object:
            context.execute_async_v3(torch.cuda.current_stream(example.device).cuda_stream)
            return output, example, engine  # the addresses stay valid while the callable lives

        return run

    def _build(self, model: bytes) -> Any:
        """An engine that computes in the model's own types.

        Raises:
            UserError: TensorRT does not take the model, or finds no kernel.
        """
        trt = self._tensorrt
        builder = trt.Builder(self._logger)
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the default from version 11 on
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(model):
            raise UserError(f"tensorrt: {parser.get_error(0)}")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise UserError("tensorrt: no engine could be built; its messages above say why")
        self._runtime = trt.Runtime(self._logger)  # an engine needs it
        return self._runtime.deserialize_cuda_engine(plan)
