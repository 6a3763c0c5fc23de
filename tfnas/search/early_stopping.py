"""Stopping when the ranking of the operations has settled: criterion 1* of DARTS+, as Appendix E relaxes it.

L searchable layers, K candidate operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tfnas.runtime.schema import EarlyStoppingParams


class RankingStability:
    """How many epochs in a row each layer has kept the order of its operations by alpha.

    Appendix E stops when 3/4 of the layers have kept it for 5 epochs. Epochs of the warm-up, in which alpha is frozen,
    do not count.
    """

    def __init__(self, params: EarlyStoppingParams) -> None:
        self._params = params
        self._ranking: Tensor | None = None  # (L, K) operations, the strongest first
        self._unchanged: Tensor | None = None  # (L,) epochs

    def update(self, alphas: Tensor) -> None:
        """Look at alpha (L, K) after an epoch."""
        ranking = alphas.detach().cpu().argsort(dim=-1, descending=True, stable=True)
        if self._ranking is None or self._unchanged is None:
            self._unchanged = torch.zeros(len(ranking), dtype=torch.long)
        else:
            kept = (ranking == self._ranking).all(-1)
            self._unchanged = torch.where(kept, self._unchanged + 1, 0)
        self._ranking = ranking

    def is_reached(self) -> bool:
        """Whether enough layers have kept their ranking for long enough."""
        if self._unchanged is None:
            return False
        stable = int((self._unchanged >= self._params.epochs).sum())
        return stable >= self._params.layers * len(self._unchanged)

    def state_dict(self) -> dict[str, Tensor | None]:
        return {"ranking": self._ranking, "unchanged": self._unchanged}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        self._ranking, self._unchanged = state["ranking"], state["unchanged"]
