"""The latency lookup table: measuring it, reading it, and what it says about a space."""

from tfnas.latency.reach import reachable_range_ms, resolve_target_ms
from tfnas.latency.table import Curve, LatencyTable, OperationKey

__all__ = ["Curve", "LatencyTable", "OperationKey", "reachable_range_ms", "resolve_target_ms"]
