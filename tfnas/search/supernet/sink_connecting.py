"""Sink-connecting: all layers of a stage feed one sink point, weighted by depth (Fig. 1c, Eq. 5, Eq. 6).

D layers of a stage, K candidate operations; beta is (D,), the first for depth 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tfnas.search.supernet.mixed_op import MixedOp, SearchableLayer, weighted_sum
from tfnas.space import Candidate, Layer


def sink(outputs: Sequence[Tensor], beta: Tensor) -> Tensor:
    """Weighted sum of the outputs of all layers, Eq. 5: sum_l v_l x^l with v = softmax(beta)."""
    return outputs[0] if len(outputs) == 1 else weighted_sum(beta.softmax(-1), outputs)


def stage_cost(layer_costs: Tensor, beta: Tensor) -> Tensor:
    """Cost of a stage, Eq. 6: the sum over depths of v_l times the cost of layers 1 to l; (D,) to ()."""
    return (beta.softmax(-1) * layer_costs.cumsum(-1)).sum()


def depth_strength(beta: Tensor) -> Tensor:
    """Eq. 11: softmax of beta over the depths of a stage."""
    return beta.detach().softmax(-1)


class LogProbabilities(NamedTuple):
    """Logarithms of the probabilities of d consecutive layers, of which the first 1, 2, ... or all are kept."""

    choices: Tensor  # (d, K), or (d, K + 1) where the last is to skip the layer
    depths: Tensor  # (d,)


class SinkConnectedStage(nn.Module):
    """The searchable layers of one stage and their sink point.

    Depth starts at 1: the first layer of every stage of Table 1 changes the shape, so it cannot be left out.
    A stage whose first layer keeps the shape is treated alike.

    It is also the base of the alternatives in `depth_spaces`: how a stage computes, what its beta is, what it costs,
    and which layers are derived.
    """

    may_skip = False  # whether layers after the first can be left out one by one
    skip_is_candidate = False  # whether alpha has one more column, for that

    @staticmethod
    def initial_beta(max_depth: int) -> Tensor:
        """All depths alike, (D,)."""
        return torch.zeros(max_depth)

    @staticmethod
    def expected_cost(layer_costs: Tensor, beta: Tensor) -> Tensor:
        """Expected cost of the stage, (D,) to ()."""
        return stage_cost(layer_costs, beta)

    @staticmethod
    def kept(operations: Sequence[int], beta: Tensor, num_candidates: int) -> list[bool]:
        """Which of the D layers a derived network has: those up to the strongest depth (Eq. 11)."""
        depth = 1 + int(depth_strength(beta).argmax())
        return [position < depth for position in range(len(operations))]

    @staticmethod
    def log_probabilities(logits: Tensor, beta: Tensor) -> list[LogProbabilities]:
        """What a derived network's probability is the product of: Eq. 10 of each layer, and Eq. 11; (D, K) logits."""
        return [LogProbabilities(logits.log_softmax(-1), beta.log_softmax(-1))]

    def __init__(
        self,
        layers: Sequence[Layer],
        candidates: Sequence[Candidate],
        kind: Callable[[Layer, Sequence[Candidate]], SearchableLayer] = MixedOp,
    ) -> None:
        super().__init__()
        self.stage = layers[0].stage
        self.layers = nn.ModuleList(kind(layer, candidates) for layer in layers)

    def __len__(self) -> int:
        return len(self.layers)

    def mixed_ops(self) -> list[SearchableLayer]:
        return [layer for layer in self.layers if isinstance(layer, SearchableLayer)]

    def forward_path(
        self,
        x: Tensor,
        operations: Sequence[int],
        beta: Tensor,
        weights: Sequence[Tensor | None] | None = None,
        *,
        recompute: bool = False,
    ) -> Tensor:
        """One operation in each layer, (D,) indices; K for skip, where it is a candidate.

        Args:
            weights: factor of each layer's operation, (D,); None: 1.
            recompute: keep no activations for the backward pass, which computes them again.
        """
        own = [None] * len(self) if weights is None else weights
        return self._forward(
            x, lambda layer, y, i: self._one(layer, y, operations[i], own[i], recompute=recompute), beta
        )

    def forward_derived(self, x: Tensor, operations: Sequence[int], kept: Sequence[bool]) -> Tensor:
        """The layers of a derived network alone, one operation in each: one depth, not the sink point's mixture.

        Equal to `forward_path` where softmax(beta) is one-hot at that depth.

        Args:
            operations: (D,) indices.
            kept: (D,) booleans, which layers the network has.
        """
        for layer, operation, is_kept in zip(self.mixed_ops(), operations, kept, strict=True):
            if is_kept:
                x = layer.forward_path(x, operation)
        return x

    def forward_mixed(self, x: Tensor, weights: Tensor, beta: Tensor, *, recompute: bool = False) -> Tensor:
        """All operations in each layer, weighted by (D, K)."""
        return self._forward(x, lambda layer, y, i: layer.forward_mixed(y, weights[i], recompute=recompute), beta)

    @staticmethod
    def _one(layer: SearchableLayer, x: Tensor, operation: int, weight: Tensor | None, *, recompute: bool) -> Tensor:
        """One operation of a layer."""
        return layer.forward_path(x, operation, weight, recompute=recompute)

    def _forward(self, x: Tensor, run: Callable[[SearchableLayer, Tensor, int], Tensor], beta: Tensor) -> Tensor:
        """All layers by `run` (layer, input, position), joined as the depth space joins them."""
        outputs: list[Tensor] = []
        for i, layer in enumerate(self.mixed_ops()):
            x = run(layer, x, i)
            outputs.append(x)
        return sink(outputs, beta)
