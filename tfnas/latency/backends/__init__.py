"""What runs a network on a device: PyTorch, torch.compile, ONNX Runtime, and backends that users install."""

from tfnas.latency.backends.registry import (
    Backend,
    BackendOptions,
    OwnClock,
    device_of,
    known_backends,
    open_backend,
    sequence_of,
    stopwatch_of,
)
from tfnas.latency.backends.torch import TorchEager

__all__ = [
    "Backend",
    "BackendOptions",
    "OwnClock",
    "TorchEager",
    "device_of",
    "known_backends",
    "open_backend",
    "sequence_of",
    "stopwatch_of",
]
