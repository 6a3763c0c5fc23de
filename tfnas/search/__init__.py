"""The search: sampling, supernet, sink-connecting, elasticity-scaling, derivation."""

from tfnas.search.loop import run_warm_up, search
from tfnas.search.result import EpochRecord, SearchResult, WarmUp, load_search_result, load_warm_up, write_history
from tfnas.search.scaling.elasticity_scaling import scale_widths
from tfnas.search.scaling.integer_ratio import scale_widths_by_integer_ratio
from tfnas.search.scaling.widths import ScalingResult, width_ranges

__all__ = [
    "EpochRecord",
    "ScalingResult",
    "SearchResult",
    "WarmUp",
    "load_search_result",
    "load_warm_up",
    "run_warm_up",
    "scale_widths",
    "scale_widths_by_integer_ratio",
    "search",
    "width_ranges",
    "write_history",
]
