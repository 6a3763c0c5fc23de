"""ncnn, Tencent's runtime for phones, on this CPU."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from tfnas.jobs.errors import UserError
from tfnas.latency.backends.converted import ConvertingBackend, move_pair
from tfnas.latency.backends.onnx_runtime import export_static_onnx

INPUT, OUTPUT = "in0", "out0"  # as pnnx names them


class Ncnn(ConvertingBackend):
    """Converts each module as ONNX with pnnx; a third of a second per block, so files are kept.

    ncnn knows no batch: one image per run.
    """

    name = package = "ncnn"
    converter = "pnnx"
    suffix = "ncnn.param"
    weights_apart = True

    @classmethod
    def write(cls, module: nn.Module, example: Tensor, path: Path) -> None:
        """Write a .param file, and the weights in a .bin file.

        Raises:
            UserError: a batch of more than one image; pnnx fails.
        """
        if len(example) != 1:
            raise UserError(f"profile_latency.batch_size: {len(example)}: ncnn runs one image at a time; write 1")
        with tempfile.TemporaryDirectory() as folder:
            _convert(export_static_onnx(module, example), tuple(example.shape), Path(folder))
            move_pair(Path(folder) / "model.ncnn.param", Path(folder) / "model.ncnn.bin", path)

    @classmethod
    def load(cls, path: Path, *, threads: int) -> _Loaded:
        return _Loaded(path, threads)


def _convert(onnx: bytes, shape: tuple[int, ...], folder: Path) -> None:
    """Run pnnx, which writes model.ncnn.param and model.ncnn.bin next to its input."""
    import pnnx

    (folder / "model.onnx").write_bytes(onnx)
    size = f"inputshape=[{','.join(map(str, shape))}]f32"
    command = [pnnx.EXEC_PATH, "model.onnx", size, "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode != 0 or not (folder / "model.ncnn.bin").is_file():
        reason = " ".join((done.stderr or done.stdout).split())[-200:]
        raise UserError(f"ncnn: pnnx cannot convert this network: {reason}")


class _Loaded:
    """A net, and its input."""

    def __init__(self, path: Path, threads: int) -> None:
        import ncnn

        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        for name in ("fp16_storage", "fp16_packed", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{name}", False)
        if self._net.load_param(str(path)) or self._net.load_model(str(path.with_suffix(".bin"))):
            raise UserError(f"{path}: ncnn cannot read this file or its weights")

    def set_input(self, images: np.ndarray) -> None:
        import ncnn

        (image,) = images
        self._image = ncnn.Mat(np.ascontiguousarray(image)).clone()  # a Mat of an array does not own it

    def __call__(self) -> _Loaded:
        extractor = self._net.create_extractor()
        extractor.input(INPUT, self._image)
        _, self._output = extractor.extract(OUTPUT)
        return self

    def output(self) -> np.ndarray:
        output: Any = np.array(self._output)
        return output[None]
