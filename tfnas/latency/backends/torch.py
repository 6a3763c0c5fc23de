"""PyTorch backends: eager, and torch.compile with inductor for one static shape."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tfnas.compute.devices import autocast
from tfnas.jobs.errors import UserError
from tfnas.latency.backends.registry import BackendOptions


class TorchEager:
    """Runs the module; in channels-last memory and under autocast where the options say so."""

    name = "torch-eager"
    here = True  # runs in the calling thread, so interruptions can be detected

    def __init__(self, options: BackendOptions | None = None) -> None:
        self.options = options or BackendOptions()

    @property
    def version(self) -> str:
        return str(torch.__version__)

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        module, example = to_memory_format(module, example, self.options.channels_last)
        return under_autocast(lambda: module(example), example.device, self.options.precision)


def to_memory_format(module: nn.Module, example: Tensor, channels_last: bool) -> tuple[nn.Module, Tensor]:
    """Weights and input with the channels as the innermost dimension, or as they are."""
    if not channels_last:
        return module, example
    module.to(memory_format=torch.channels_last)
    return module, example.to(memory_format=torch.channels_last)


def under_autocast(run: Callable[[], object], device: torch.device, precision: str) -> Callable[[], object]:
    """Each run in its own autocast, like a forward pass of a network: weights are cast again in each."""
    if precision == "float32":
        return run

    def run_cast() -> object:
        with autocast(device, precision):
            return run()

    return run_cast


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
