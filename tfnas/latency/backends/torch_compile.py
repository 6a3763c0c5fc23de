"""torch.compile with inductor, for one static shape."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tfnas.latency.backends.protocol import BackendOptions
from tfnas.latency.backends.torch_eager import to_memory_format, under_autocast
from tfnas.runtime.errors import UserError


class TorchCompile:
    """Compiles each module for its input and runs the result.

    Compiling takes seconds per module (inductor keeps it on disk, so that a later visit of the same shape takes a
    fraction of one): fine for `tfnas compare` and for small spaces, half an hour and more for Table 1 at 224.
    """

    name = "torch-compile"
    here = True

    def __init__(self, options: BackendOptions | None = None) -> None:
        self.options = options or BackendOptions()
        if self.options.device == "cpu":
            _check_compiler()

    @property
    def version(self) -> str:
        return str(torch.__version__)

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        torch.compiler.reset()  # else the ninth shape of a class counts as recompilation, and runs uncompiled
        module, example = to_memory_format(module, example, self.options.channels_last)
        compiled = torch.compile(module, dynamic=False)
        run = under_autocast(lambda: compiled(example), example.device, self.options.precision)
        run()  # compiles
        return run


def _check_compiler() -> None:
    """Inductor turns CPU kernels into C++ and compiles them.

    Raises:
        UserError: there is no C++ compiler.
    """
    named = os.environ.get("CXX", "").split()
    if not any(shutil.which(name) for name in (*named[:1], "g++", "clang++", "c++")):
        raise UserError(
            "profile_latency.backend: torch-compile needs a C++ compiler and none was found; install g++ (or name one"
            " in the environment variable CXX), or write torch-eager"
        )
