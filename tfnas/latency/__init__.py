"""The latency lookup table: measuring it, reading it, and what it says about a space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.jobs.lazy import import_later
from tfnas.latency.reach import reachable_range_ms, resolve_target_ms
from tfnas.latency.table import Curve, LatencyTable, OperationKey

if TYPE_CHECKING:
    from tfnas.latency.timing import Timing
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

__getattr__ = import_later(
    __name__,
    {  # needs torch, whose import takes longer than reading a table
        "Timing": "tfnas.latency.timing",
        "measure_architecture_ms": "tfnas.latency.validation",
    },
)
