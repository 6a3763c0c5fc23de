"""What a network is searched for: a space, what networks cost, and a limit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.latency import LatencyTable, resolve_target_ms
from tfnas.search.cost import Cost, Latency
from tfnas.space import Architecture, Space, load_space

if TYPE_CHECKING:
    from tfnas.stages.params import Params


@dataclass(frozen=True)
class Constraint:
    """A space, and the limit on a cost that networks of it must meet."""

    space: Space
    cost: Cost
    limit: float  # in the cost's unit

    def metrics(self, architecture: Architecture) -> dict[str, float]:
        """Target, cost by the table, and how far the second is from the first (percent of the target)."""
        value = self.cost.value(architecture)
        return {
            f"target_{self.cost.unit}": self.limit,
            f"table_{self.cost.name}_{self.cost.unit}": value,
            "gap_percent": 100.0 * (value / self.limit - 1.0),
        }


def latency_constraint(space: Space, table: LatencyTable, target_ms: float) -> Constraint:
    """At most so many milliseconds by a device's table."""
    return Constraint(space, Latency(table), target_ms)


def read_table(params: Params, table_path: Path) -> tuple[Space, LatencyTable]:
    """The space, and its latency table.

    Raises:
        UserError: the table is of another space or resolution.
    """
    space = load_space(params.space)
    table = LatencyTable.load(table_path)
    table.check_fits(space, params.resolution, source=str(table_path))
    return space, table


def read_constraint(params: Params, target: str, table_path: Path) -> Constraint:
    """The constraint of a target that asks for a latency.

    Raises:
        UserError: the table is of another space or resolution, or no network reaches the target.
    """
    space, table = read_table(params, table_path)
    wanted = params.targets[target].constraint
    target_ms = resolve_target_ms(target, wanted.latency_ms, wanted.relative, space, table)
    return latency_constraint(space, table, target_ms)
