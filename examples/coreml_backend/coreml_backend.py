"""A latency backend for tfnas: Core ML on a Mac, on its CPU, GPU or Neural Engine.

NOT RUN: it is written by coremltools' documentation and tested against a fake `coremltools`, never yet on a Mac.

The environment variable TFNAS_COREML_UNITS chooses the compute units: CPU_ONLY, CPU_AND_GPU, CPU_AND_NE (default) or
ALL. The Neural Engine computes in float16: write `precision: float16`. A prediction from Python costs some
tens of microseconds besides the model's, so block times are too long; the correction by whole networks takes out most
of it. A table for an iPhone needs an app on the phone, as with examples/adb_backend.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tfnas.compute.devices import device_name
from tfnas.jobs.errors import UserError
from tfnas.latency.backends import BackendOptions

INPUT = "images"
PRECISIONS = {"float32": "FLOAT32", "float16": "FLOAT16"}
UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")


class CoreMlBackend:
    """Converts each module to an ML program and predicts with it. Core ML chooses its threads itself."""

    name = "coreml"

    def __init__(self, options: BackendOptions) -> None:
        if options.precision not in PRECISIONS:
            raise UserError(f"profile_latency.precision: {options.precision}: coreml takes {', '.join(PRECISIONS)}")
        if options.channels_last:
            raise UserError("profile_latency.channels_last: true: Core ML chooses its own memory layout; write false")
        self._units = os.environ.get("TFNAS_COREML_UNITS", "CPU_AND_NE")
        if self._units not in UNITS:
            raise UserError(f"TFNAS_COREML_UNITS={self._units}: write one of {', '.join(UNITS)}")
        try:
            import coremltools
        except ImportError:
            raise UserError("profile_latency.backend: coremltools is not installed; pip install coremltools") from None
        self._coremltools, self._precision = coremltools, PRECISIONS[options.precision]
        self.device = f"{device_name('cpu')}, Core ML {self._units}"

    @property
    def version(self) -> str:
        return str(self._coremltools.__version__)

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        ct = self._coremltools
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # about torch.jit, from which coremltools converts
            traced = torch.jit.trace(module, (example,), check_trace=False)
        model = ct.convert(
            traced,
            inputs=[ct.TensorType(name=INPUT, shape=tuple(example.shape))],
            convert_to="mlprogram",
            compute_precision=getattr(ct.precision, self._precision),
            compute_units=getattr(ct.ComputeUnit, self._units),
        )
        images = {INPUT: example.numpy()}
        return lambda: model.predict(images)

    def time_runs(self, run: Callable[[], object], repeats: int) -> Sequence[float]:
        """Milliseconds of each prediction, by this Mac's clock."""
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(1000.0 * (time.perf_counter() - start))
        return times
