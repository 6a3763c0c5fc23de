"""What all epochs of a search share, and what one hands to the next: supernet, optimizers, history.

L searchable layers, K candidate operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tfnas.compute.seeding import derive_seed
from tfnas.search.derivation.strongest import Derived
from tfnas.search.params import EarlyStoppingParams, SearchParams
from tfnas.search.result import EpochRecord
from tfnas.search.supernet.mixed_op import Operation
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import Architecture, Space


@dataclass(frozen=True)
class Setting:
    """What all epochs of a search, or of a warm-up, share.

    Attributes:
        name: of the job, on its progress bar and in errors.
        within: `derive.within` of params.yaml: which network is derived, and scaled, after an epoch.
    """

    params: SearchParams
    seed: int = 0
    device: torch.device | str = "cpu"
    precision: str = "float32"
    name: str = "search"
    within: str = "strongest"

    def searches(self, epoch: int) -> bool:
        """Whether alpha, beta and the widths change in an epoch (counted from 0): the warm-up is over."""
        return epoch >= self.params.warmup_epochs

    def generator(self, epoch: int) -> torch.Generator:
        """Of an epoch's paths and noise; seeds torch's global random state as well."""
        torch.manual_seed(derive_seed(self.seed, "search", epoch))
        return torch.Generator().manual_seed(derive_seed(self.seed, "search", "paths", epoch))

    def evaluation_generator(self, epoch: int) -> torch.Generator:
        """Of an epoch's random networks; a generator of its own, so that evaluating changes nothing else."""
        return torch.Generator().manual_seed(derive_seed(self.seed, "search", "evaluation", epoch))


class RankingStability:
    """How many epochs in a row each layer has kept the order of its operations by alpha.

    Criterion 1* of DARTS+ as Appendix E relaxes it: the search ends when 3/4 of the layers have kept it for 5 epochs.
    Epochs of the warm-up, in which alpha is frozen, do not count.
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

    def __init__(self, supernet: Supernet, setting: Setting) -> None:
        self.supernet, self._params = supernet, setting.params
        device_type, scaled = supernet.alphas.device.type, setting.precision == "float16"
        self.weight_scaler = torch.amp.GradScaler(device_type, enabled=scaled)
        self.architecture_scaler = torch.amp.GradScaler(device_type, enabled=scaled)
        self.history: list[EpochRecord] = []
        self.stability: RankingStability | None = None
        if self._params.early_stopping is not None:
            self.stability = RankingStability(self._params.early_stopping)
        self.build_optimizers()

    @classmethod
    def initial(cls, space: Space, num_classes: int, setting: Setting) -> SearchState:
        """The state before the first epoch."""
        torch.manual_seed(derive_seed(setting.seed, "search", "supernet"))
        supernet = Supernet(space, num_classes, setting.params.depth_space, setting.params.weight_sharing)
        return cls(supernet.to(setting.device), setting)

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
        """Set the cosine learning rate; rebuild the optimizers where params ask for it (as in the authors' code)."""
        if self._params.reset_optimizers:
            self.build_optimizers()
        for group in self.weight_optimizer.param_groups:
            group["lr"] = learning_rate(epoch, self._params)

    def apply_widths(self, derived: Derived, scaled: Architecture) -> None:
        """Give the derived operations their scaled widths (Algorithm 1, line 6); the others keep theirs."""
        operations = list(self.supernet.operations())
        for layer, candidate, block in derived.chosen(self.supernet.space):
            operation = operations[layer * len(self.supernet.space.candidates) + candidate]
            before, leaves = operation.width, operation.leaves
            order = operation.set_width(scaled.blocks[block].expand_channels, self._params.channel_importance)
            if order is not None:
                self._replace_leaves(operation, leaves, before, order)

    def _replace_leaves(self, operation: Operation, leaves: Mapping[str, Tensor], before: int, order: Tensor) -> None:
        """Let the optimizer train an operation's new leaves; momentum moves with its channel."""
        trained, state = self.weight_optimizer.param_groups[0]["params"], self.weight_optimizer.state
        places = {id(leaf): place for place, leaf in enumerate(trained)}
        for name, following in operation.leaves.items():
            leaf = leaves[name]
            trained[places[id(leaf)]] = following
            if leaf not in state:
                continue
            state[following] = state.pop(leaf)
            momentum = state[following].get("momentum_buffer")
            if momentum is not None:
                state[following]["momentum_buffer"] = operation.moved(name, momentum, before, order)

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
        """Start from what `after_warm_up` gave."""
        self.supernet.load_state_dict(warm_up["supernet"])
        self.weight_optimizer.load_state_dict(warm_up["weight_optimizer"])
        self.weight_scaler.load_state_dict(warm_up["weight_scaler"])
        self.history = [EpochRecord(**record) for record in warm_up["history"]]

    def _optimizing(self) -> tuple[Any, ...]:
        return self.weight_optimizer, self.architecture_optimizer, self.weight_scaler, self.architecture_scaler


def learning_rate(epoch: int, params: SearchParams) -> float:
    """Of an epoch's weight steps: from the initial one down to zero as a cosine (Appendix B), one value per epoch."""
    return params.weights.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / params.epochs))


def temperature(epoch: int, params: SearchParams) -> float:
    """tau of Eq. 3: its initial value until the first searching epoch, then decaying once per epoch (Appendix B)."""
    return params.temperature.initial * params.temperature.decay ** max(0, epoch - params.warmup_epochs)
