"""What runs a network on a device: the seam at which other runtimes join."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn


class Backend(Protocol):
    """Turns modules into callables to be timed."""

    @property
    def name(self) -> str:
        """As it stands in the table's details."""
        ...

    @property
    def version(self) -> str: ...

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        """A callable that runs the module on the example once.

        Args:
            module: in eval mode, on the device of `example`.
            example: the input, (N, C, H, W).
        """
        ...


class TorchEager:
    """PyTorch as it is, without compilation."""

    name = "torch-eager"
    here = True  # computes in the calling thread, so that it can be told when something else takes the processor

    @property
    def version(self) -> str:
        return str(torch.__version__)

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        return lambda: module(example)
