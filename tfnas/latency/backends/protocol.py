"""The interface of a backend: what it implements, what it is given, and the clock it may bring itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from tfnas.compute.devices import device_name, time_calls, time_sequence

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tfnas.latency.params import ProfileLatencyParams


@dataclass(frozen=True)
class BackendOptions:
    """What a backend is opened with: the values of `profile_latency`, or the options of the command."""

    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int = 1  # CPU threads of one run
    precision: str = "float32"  # float32, bfloat16 or float16
    channels_last: bool = False

    @classmethod
    def of(cls, params: ProfileLatencyParams) -> BackendOptions:
        return cls(params.device, params.threads, params.precision, params.channels_last)


class Backend(Protocol):
    """Turns modules into callables to be timed.

    A class that implements it is opened with one argument, the `BackendOptions`. It raises UserError for an
    option that it does not take, or when something that it needs is absent.
    """

    @property
    def name(self) -> str:
        """As recorded in the table's details."""
        ...

    @property
    def version(self) -> str: ...

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        """A callable that runs the module on the example once. This preparation is not timed.

        Args:
            module: in eval mode, on the device of `example`; the backend may change it.
            example: the input, (N, C, H, W).
        """
        ...


@runtime_checkable
class OwnClock(Protocol):
    """A backend for another machine's device: it names the device and times the runs there."""

    @property
    def device(self) -> str:
        """As recorded in the table: a name that a person recognizes."""
        ...

    def time_runs(self, run: Callable[[], object], repeats: int) -> Sequence[float]:
        """Milliseconds of each of `repeats` runs of what `prepare` returned. Warm-up runs are asked for first."""
        ...


Stopwatch = Callable[["torch.device", Callable[[], object], int], Sequence[float]]


def stopwatch_of(backend: Backend) -> Stopwatch:
    """The backend's own clock, or this machine's."""
    if isinstance(backend, OwnClock):
        own = backend
        return lambda device, run, repeats: own.time_runs(run, repeats)
    return time_calls


def sequence_of(backend: Backend) -> Callable[..., np.ndarray]:
    """The function that times several runs in turn: `time_sequence`, or one that uses the backend's clock."""
    if not isinstance(backend, OwnClock):
        return time_sequence
    own = backend

    def time_own(
        device: object, runs: Sequence[Callable[[], object]], repeats: int, *, here: bool = True
    ) -> np.ndarray:
        return np.array([[own.time_runs(run, 1)[0] for run in runs] for _ in range(repeats)])

    return time_own


def device_of(backend: Backend, device: str) -> str:
    """The name of the device that the backend measures on; `device` is the one of the parameters."""
    return backend.device if isinstance(backend, OwnClock) else device_name(device)
