"""The latency lookup table: measuring it, reading it, and what it says about a space."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfnas.latency.reach import reachable_range_ms, resolve_target_ms
from tfnas.latency.table import Curve, LatencyTable, OperationKey

if TYPE_CHECKING:
    from tfnas.latency.timer import Timing
    from tfnas.latency.validation import measure_architecture_ms

__all__ = [
    "Curve",
    "LatencyTable",
    "OperationKey",
    "Timing",
    "measure_architecture_ms",
    "reachable_range_ms",
    "resolve_target_ms",
]

_LATER = {  # needs torch, whose import takes longer than reading a table
    "Timing": "tfnas.latency.timer",
    "measure_architecture_ms": "tfnas.latency.validation",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
