"""The search: sampling, supernet, sink-connecting, elasticity-scaling, derivation."""

from tfnas.search.elasticity_scaling import scale_widths
from tfnas.search.history import EpochRecord, write_history
from tfnas.search.integer_ratio_scaling import scale_widths_by_integer_ratio
from tfnas.search.result import SearchResult, load_search_result
from tfnas.search.searcher import run_warm_up, search
from tfnas.search.warm_up import WarmUp, load_warm_up
from tfnas.search.width_problem import ScalingResult, width_ranges

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
