"""What a backend implements and is given; and backends by name, shipped or added by users' packages as entry points."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from tfnas.compute.devices import device_name, time_calls, time_sequence
from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tfnas.latency.params import ProfileLatencyParams

GROUP = "tfnas.latency_backends"  # of entry points: a name, and the class or function that opens the backend
SHIPPED = {
    "torch-eager": "tfnas.latency.backends.torch:TorchEager",
    "torch-compile": "tfnas.latency.backends.torch:TorchCompile",
    "onnx-runtime": "tfnas.latency.backends.onnx_runtime:OnnxRuntime",
    "openvino": "tfnas.latency.backends.openvino:OpenVino",
    "executorch": "tfnas.latency.backends.executorch:ExecuTorch",
    "litert": "tfnas.latency.backends.litert:LiteRt",
    "ncnn": "tfnas.latency.backends.ncnn:Ncnn",
}
INT8_BACKENDS = "backend: onnx-runtime or openvino"  # for a user who asked another one for int8


@dataclass(frozen=True)
class BackendOptions:
    """What a backend is opened with: the values of `profile_latency`, or the options of the command."""

    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int = 1  # CPU threads of one run
    precision: str = "float32"  # float32, bfloat16, float16 or int8
    channels_last: bool = False

    @classmethod
    def of(cls, params: ProfileLatencyParams) -> BackendOptions:
        return cls(params.device, params.threads, params.precision, params.channels_last)


class Backend(Protocol):
    """Turns modules into callables to be timed.

    A class that implements it is opened with one argument, the `BackendOptions`. It raises UserError for an
    option that it does not take, or when something that it needs is absent. One that can quantize says so by an
    attribute `precisions`, a sequence of names with "int8" in it; others are never asked for int8.
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


def refuse_other_than_cpu(options: BackendOptions, name: str, *, precisions: Sequence[str] = ("float32",)) -> None:
    """Check the options of a runtime that computes on the CPU, in a memory layout of its own.

    Args:
        precisions: that it takes.

    Raises:
        UserError: an option that it does not take, and what to write instead.
    """
    where = f"the backend {name}"
    if options.device != "cpu":
        wrong = f"device: {options.device}: {where} is for the CPU; write cpu, or backend: torch-eager"
    elif options.precision not in precisions:
        taken = " or ".join(precisions)
        other = f", or {INT8_BACKENDS}" if options.precision == "int8" else ""
        wrong = f"precision: {options.precision}: {where} computes in {taken}; write {taken}{other}"
    elif options.channels_last:
        wrong = f"channels_last: true: {where} chooses its own memory layout; write false"
    else:
        return
    raise UserError(f"profile_latency.{wrong}")


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


def known_backends() -> list[str]:
    """Names of the shipped backends, then of the installed ones."""
    return [*SHIPPED, *sorted(set(_installed()) - set(SHIPPED))]


def open_backend(
    name: str, options: BackendOptions | None = None, *, source: str = "profile_latency.backend:"
) -> Backend:
    """The backend of that name. A shipped name means the shipped backend.

    Args:
        source: where the name was given, for errors.

    Raises:
        UserError: unknown name; a package that cannot be imported; an option that the backend does not take.
    """
    options = options or BackendOptions()
    backend = _factory(name, source)(options)
    if options.precision == "int8" and "int8" not in getattr(backend, "precisions", ()):
        raise UserError(
            f"profile_latency.precision: int8: the backend {name} does not quantize; write float32, or {INT8_BACKENDS}"
        )
    return backend


def _factory(name: str, source: str) -> Callable[[BackendOptions], Backend]:
    if name in SHIPPED:
        module, _, attribute = SHIPPED[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    installed = _installed()
    if name not in installed:
        close = difflib.get_close_matches(name, known_backends(), n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"{source} {name!r} is no backend; {guess}Known: {', '.join(known_backends())};"
            f" a package adds its own as an entry point of the group {GROUP}"
        )
    try:
        return installed[name].load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{source} {name!r}: entry point {installed[name].value} cannot be loaded ({error}); install it again"
        ) from None


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
