"""How far a training has come: the part of a checkpoint that is not the network's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tfnas.compute import distributed
from tfnas.train.history import EpochRecord
from tfnas.train.metrics import Metrics, MetricSums


@dataclass
class Progress:
    """Epochs done, and the steps done of the one under way.

    Attributes:
        history: one record an epoch done.
        final: the last validation.
        step: steps done of the epoch under way.
        seconds: that they took.
        sums: of this process's training batches in them.
    """

    sums: MetricSums
    history: list[EpochRecord] = field(default_factory=list)
    final: Metrics | None = None
    step: int = 0
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """The epoch under way, counted from 0."""
        return len(self.history)

    def finish_epoch(self, record: EpochRecord, validated: Metrics, sums: MetricSums) -> None:
        """Note a finished epoch; `sums` are the next one's, empty."""
        self.history.append(record)
        self.final, self.step, self.seconds, self.sums = validated, 0, 0.0, sums

    def state_dict(self) -> dict[str, Any]:
        """Plain values, the sums of all processes among them: all of them must call it."""
        return {
            "history": [asdict(record) for record in self.history],
            "final": None if self.final is None else asdict(self.final),
            "step": self.step,
            "seconds": self.seconds,
            "sums": distributed.gather(self.sums.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = [EpochRecord(**record) for record in state["history"]]
        self.final = None if state["final"] is None else Metrics(**state["final"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.sums.load_state_dict(state["sums"][distributed.rank()])
