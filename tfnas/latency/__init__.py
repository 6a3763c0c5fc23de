"""The latency lookup table: measuring it, reading it, and what it says about a space."""

from tfnas.latency.reach import reachable_range_ms, resolve_target_ms
from tfnas.latency.table import Curve, LatencyTable, OperationKey
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
