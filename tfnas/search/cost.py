"""What a network costs (Eq. 4), and the objective that keeps it near a limit (Eq. 9 and its alternatives of Table 5).

Latency is the first cost. Another one is another subclass of `Cost`: the supernet's expected cost (Eq. 6), the loss,
elasticity-scaling and derivation know nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor

from tfnas.latency import LatencyTable, OperationKey
from tfnas.space import Architecture

MICROSECONDS = 1000.0  # to a millisecond


class Cost(ABC):
    """A fixed part, plus a value for each block outside of it (Eq. 4).

    Attributes:
        name, unit: as in `table_latency_ms`.
        resolution: of the network's input.
        base: of the fixed part.
        fixed_stages: the stages of Table 1 that `base` holds.
        source: where the values come from: the device, for latency.
    """

    name: str
    unit: str
    resolution: int
    base: float
    fixed_stages: tuple[int, ...]
    source: str

    @abstractmethod
    def operation(self, key: OperationKey, width: int) -> float:
        """What an operation costs at a width.

        Raises:
            UserError: unknown operation or width.
        """

    @abstractmethod
    def curve(self, key: OperationKey) -> tuple[int, np.ndarray]:
        """The smallest width that an operation has a value for, and its values from there on, width by width.

        Raises:
            UserError: unknown operation.
        """

    def value(self, architecture: Architecture) -> float:
        """What a network costs: `base` plus the sum over its blocks (Eq. 4)."""
        blocks = architecture.block_resolutions(self.resolution)
        searched = [(size, block) for size, block in blocks if block.stage not in self.fixed_stages]
        return self.base + sum(
            self.operation(OperationKey.of_block(size, block), block.expand_channels) for size, block in searched
        )


class Latency(Cost):
    """Milliseconds on a device, by its table."""

    name, unit = "latency", "ms"

    def __init__(self, table: LatencyTable) -> None:
        self._table = table
        self.resolution, self.base, self.fixed_stages = table.resolution, table.base_ms, table.fixed_stages
        self.source = table.device

    def operation(self, key: OperationKey, width: int) -> float:
        return self._table.operation_ms(key, width)

    def curve(self, key: OperationKey) -> tuple[int, np.ndarray]:
        curve = self._table.curve(key)
        return curve.widths[0], curve.dense_ms


def cost_loss(cost: Tensor, limit: float, kind: str = "target", *, lambda_2: float = 0.6) -> Tensor:
    """C(LAT) without the factor lambda (Table 5: lambda_1), which the architecture step multiplies by; () to ().

    Args:
        kind: `target` for Eq. 9, the relative excess max(LAT / target - 1, 0);
            `target_abs` for |LAT / target - 1|, as in the authors' code, which also pulls a network that is too fast
            up to the target;
            `log` for C1 of Table 5, log(LAT)^lambda_2, LAT in microseconds as in FBNet (in milliseconds the logarithm
            of a network below 1 ms would be negative). FBNet multiplies the cross-entropy by it; Table 5 and Eq. 7 add;
            `linear` for C2 of Table 5, LAT in milliseconds (ProxylessNAS).
            The last two do not know the target.
        lambda_2: the exponent of `log`; FBNet's is 0.6, the paper gives none.
    """
    if kind == "log":
        return (MICROSECONDS * cost).log() ** lambda_2
    if kind == "linear":
        return cost
    excess = cost / limit - 1.0
    return excess.abs() if kind == "target_abs" else excess.clamp_min(0.0)
