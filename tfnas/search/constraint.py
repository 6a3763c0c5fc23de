"""What a job searches or derives for: a space, a device's latency table, a target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.latency import LatencyTable, resolve_target_ms
from tfnas.space import Architecture, Space, load_space

if TYPE_CHECKING:
    from tfnas.stages.params import Params


@dataclass(frozen=True)
class Constraint:
    """What a network is searched for: a space, a device's table, a latency."""

    space: Space
    table: LatencyTable
    target_ms: float


def read_constraint(params: Params, target: str, table_path: Path) -> Constraint:
    """The constraint of a target.

    Raises:
        UserError: the table is of another space or resolution, or no network reaches the target.
    """
    space = load_space(params.space)
    table = LatencyTable.load(table_path)
    table.check_fits(space, params.resolution, source=str(table_path))
    wanted = params.targets[target].constraint
    target_ms = resolve_target_ms(target, wanted.latency_ms, wanted.relative, space, table)
    return Constraint(space, table, target_ms)


def latency_metrics(architecture: Architecture, table: LatencyTable, target_ms: float) -> dict[str, float]:
    """Target, table latency, and how far the second is from the first (percent of the target)."""
    latency_ms = table.latency_ms(architecture)
    gap_percent = 100.0 * (latency_ms / target_ms - 1.0)
    return {"target_ms": target_ms, "table_latency_ms": latency_ms, "gap_percent": gap_percent}
