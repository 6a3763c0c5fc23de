"""Backends by name: the shipped ones, and those that users' packages add as entry points."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from tfnas.jobs.errors import UserError
from tfnas.latency.backends.protocol import Backend, BackendOptions

GROUP = "tfnas.latency_backends"  # of entry points: a name, and the class or function that opens the backend
SHIPPED = {
    "torch-eager": "tfnas.latency.backends.torch:TorchEager",
    "torch-compile": "tfnas.latency.backends.torch:TorchCompile",
    "onnx-runtime": "tfnas.latency.backends.onnx_runtime:OnnxRuntime",
}


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
    return _factory(name, source)(options or BackendOptions())


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
