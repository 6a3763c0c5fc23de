from .table import Curve as Curve
from .table import LatencyTable as LatencyTable
from .table import OperationKey as OperationKey
from .table import reachable_range_ms as reachable_range_ms
from .table import resolve_target_ms as resolve_target_ms
from .timing import Timing as Timing
from .validation import measure_architecture_ms as measure_architecture_ms
