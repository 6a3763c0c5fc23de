"""Stopping when the ranking of the operations has settled: criterion 1* of DARTS+, as Appendix E relaxes it.

L searchable layers, K candidate operations.

What a search carries from epoch to epoch: supernet, optimizers, history.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from tfnas.search.derivation import Derived
from tfnas.search.params import EarlyStoppingParams, SearchParams
from tfnas.search.result import EpochRecord
from tfnas.search.supernet.mixed_op import CHANNEL_AXIS, CandidateOperation
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import Architecture


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


class SearchState:
    """The supernet on its device, SGD for its weights, Adam for alpha and beta, and the epochs so far."""

    def __init__(self, supernet: Supernet, params: SearchParams, precision: str) -> None:
        self.supernet, self._params = supernet, params
        device_type, scaled = supernet.alphas.device.type, precision == "float16"
        self.weight_scaler = torch.amp.GradScaler(device_type, enabled=scaled)
        self.architecture_scaler = torch.amp.GradScaler(device_type, enabled=scaled)
        self.history: list[EpochRecord] = []
        self.stability = RankingStability(params.early_stopping) if params.early_stopping is not None else None
        self.build_optimizers()

    def build_optimizers(self) -> None:
        """Fresh optimizers, without momentum and moments."""
        weights, architecture = self._params.weights, self._params.architecture
        self.weight_optimizer = torch.optim.SGD(
            self.supernet.weight_parameters(),
            lr=weights.learning_rate,
            momentum=weights.momentum,
            weight_decay=weights.weight_decay,
        )
        self.architecture_optimizer = torch.optim.Adam(
            self.supernet.architecture_parameters(),
            lr=architecture.learning_rate,
            betas=architecture.betas,
            weight_decay=architecture.weight_decay,
        )

    def begin_epoch(self, epoch: int) -> None:
        """Set the cosine learning rate; rebuild the optimizers where params ask for it (as the authors' code)."""
        if self._params.reset_optimizers:
            self.build_optimizers()
        for group in self.weight_optimizer.param_groups:
            group["lr"] = learning_rate(epoch, self._params)

    def put_back(self, derived: Derived, scaled: Architecture) -> None:
        """Give the derived operations their scaled widths (Algorithm 1, line 6); the others keep theirs."""
        operations = list(self.supernet.operations())
        for layer, candidate, block in derived.chosen(self.supernet.space):
            operation = operations[layer * len(self.supernet.space.candidates) + candidate]
            before, leaves = operation.width, operation.weights
            order = operation.set_width(scaled.blocks[block].expand_channels)
            if order is not None:
                self._hand_over(operation, leaves, before, order)

    def _hand_over(
        self, operation: CandidateOperation, leaves: Mapping[str, Tensor], before: int, order: Tensor
    ) -> None:
        """Let the optimizer go on with an operation's new weights.

        Momentum goes with its channel; a channel that comes back begins without.
        """
        trained, state = self.weight_optimizer.param_groups[0]["params"], self.weight_optimizer.state
        places = {id(leaf): place for place, leaf in enumerate(trained)}
        for name, leaf in leaves.items():
            following, axis = operation.weights[name], CHANNEL_AXIS[name]
            trained[places[id(leaf)]] = following
            if leaf not in state:
                continue
            state[following] = state.pop(leaf)
            momentum = state[following].get("momentum_buffer")
            if axis is not None and momentum is not None:
                full = torch.zeros_like(operation.get_buffer(name))
                full.narrow(axis, 0, before).copy_(momentum)
                kept = full.index_select(axis, order).narrow(axis, 0, operation.width)
                state[following]["momentum_buffer"] = kept.clone()

    def has_ended(self) -> bool:
        """Whether all epochs are done, or the rankings have settled (early stopping)."""
        settled = self.stability is not None and self.stability.is_reached()
        return settled or len(self.history) >= self._params.epochs

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "stability": self.stability.state_dict() if self.stability is not None else None,
            "supernet": self.supernet.state_dict(),
            "widths": self.supernet.widths(),
            "optimizers": [part.state_dict() for part in self._optimizing()],
            "history": [asdict(record) for record in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        self.supernet.restore_widths(state["widths"])
        self.build_optimizers()
        for part, values in zip(self._optimizing(), state["optimizers"], strict=True):
            part.load_state_dict(values)
        if self.stability is not None:
            self.stability.load_state_dict(state["stability"])
        self.history = [EpochRecord(**record) for record in state["history"]]

    def after_warm_up(self) -> dict[str, Any]:
        """What a warm-up leaves: weights and their optimizer; alpha, beta and widths are as they began.

        Without durations, so that a warm-up repeated leaves the same bytes.
        """
        timeless = {"seconds": None, "seconds_per_weight_step": None}
        return {
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "weight_scaler": self.weight_scaler.state_dict(),
            "history": [asdict(record) | timeless for record in self.history],
        }

    def begin_after(self, warm_up: dict[str, Any]) -> None:
        """Go on from what `after_warm_up` gave."""
        self.supernet.load_state_dict(warm_up["supernet"])
        self.weight_optimizer.load_state_dict(warm_up["weight_optimizer"])
        self.weight_scaler.load_state_dict(warm_up["weight_scaler"])
        self.history = [EpochRecord(**record) for record in warm_up["history"]]

    def _optimizing(self) -> tuple[Any, ...]:
        return self.weight_optimizer, self.architecture_optimizer, self.weight_scaler, self.architecture_scaler


def learning_rate(epoch: int, params: SearchParams) -> float:
    """Of an epoch's weight steps: from the initial one down to zero as a cosine (Appendix B), one value an epoch."""
    return params.weights.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / params.epochs))


def temperature(epoch: int, params: SearchParams) -> float:
    """tau of Eq. 3: its initial value until the first searching epoch, then decaying once an epoch (Appendix B)."""
    return params.temperature.initial * params.temperature.decay ** max(0, epoch - params.warmup_epochs)
