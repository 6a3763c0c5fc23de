"""The depth-level search spaces of Table 4: sink-connecting and its two alternatives (Sec. 3.3, Fig. 3).

L searchable layers, D layers of a stage, K candidate operations. In both alternatives every layer but the first of its
stage (which changes the shape) may be skipped: its input is passed on unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tfnas.search.supernet.mixed_op import SearchableLayer
from tfnas.search.supernet.sink_connecting import LogProbabilities, SinkConnectedStage
from tfnas.space import Space

SKIP = "skip"  # the name of the operation


class SkipInStage(SinkConnectedStage):
    """ "Skip in candidates" (Fig. 3a): skip is one more candidate operation, and competes with each of the others.

    alpha has K + 1 columns, the last for skip; there is no beta.
    """

    may_skip = skip_is_candidate = True

    @staticmethod
    def initial_beta(max_depth: int) -> Tensor:
        """Empty, (0,)."""
        return torch.zeros(0)

    @staticmethod
    def expected_cost(layer_costs: Tensor, beta: Tensor) -> Tensor:
        """The sum of the layers (Eq. 4), where skip costs nothing."""
        return layer_costs.sum()

    @staticmethod
    def kept(operations: Sequence[int], beta: Tensor, num_candidates: int) -> list[bool]:
        """The layers whose strongest operation is not skip."""
        return [operation < num_candidates for operation in operations]

    @staticmethod
    def log_probabilities(logits: Tensor, beta: Tensor) -> list[LogProbabilities]:
        """Each layer on its own: Eq. 10 with skip among the operations; (D, K + 1) logits."""
        return [LogProbabilities(row[None].log_softmax(-1), torch.zeros(1)) for row in logits]

    def forward_mixed(self, x: Tensor, weights: Tensor, beta: Tensor, *, recompute: bool = False) -> Tensor:
        """All operations in each layer, weighted by (D, K + 1)."""
        for i, layer in enumerate(self.mixed_ops()):
            mixed = layer.forward_mixed(x, weights[i, :-1], recompute=recompute)
            x = mixed if i == 0 else mixed + weights[i, -1] * x
        return x

    @staticmethod
    def _one(layer: SearchableLayer, x: Tensor, operation: int, weight: Tensor | None, *, recompute: bool) -> Tensor:
        """One operation of a layer, or its input where that is skip."""
        if operation < len(layer.all_operations()):
            return layer.forward_path(x, operation, weight, recompute=recompute)
        return x if weight is None else weight * x

    def _forward(self, x: Tensor, run: Callable[[SearchableLayer, Tensor, int], Tensor], beta: Tensor) -> Tensor:
        """One layer after the other."""
        for i, layer in enumerate(self.mixed_ops()):
            x = run(layer, x, i)
        return x


class SkipOutStage(SinkConnectedStage):
    """ "Skip out candidates" (Fig. 3b): skip competes with all the other operations of its layer together.

    beta is (D - 1, 2), one row for each layer after the first: no skip, skip. As at the sink point, nothing is sampled:
    both ways are computed and weighted by softmax(beta).
    """

    may_skip = True

    @staticmethod
    def initial_beta(max_depth: int) -> Tensor:
        """Both ways alike, (D - 1, 2)."""
        return torch.zeros(max_depth - 1, 2)

    @staticmethod
    def expected_cost(layer_costs: Tensor, beta: Tensor) -> Tensor:
        """Each layer by its probability of not being skipped."""
        return layer_costs[0] + (beta.softmax(-1)[:, 0] * layer_costs[1:]).sum()

    @staticmethod
    def kept(operations: Sequence[int], beta: Tensor, num_candidates: int) -> list[bool]:
        """The first layer, and those that are likelier to stay than to be skipped."""
        return [True, *(int(way) == 0 for way in beta.detach().argmax(-1))]

    @staticmethod
    def log_probabilities(logits: Tensor, beta: Tensor) -> list[LogProbabilities]:
        """Each layer on its own: Eq. 10 times that of its way; skipped, it counts with its strongest operation."""
        ways = torch.cat([beta.new_tensor([[0.0, -torch.inf]]), beta.log_softmax(-1)])
        operations = logits.log_softmax(-1)
        choices = torch.cat([operations + ways[:, :1], operations.amax(-1, keepdim=True) + ways[:, 1:]], dim=-1)
        return [LogProbabilities(row[None], torch.zeros(1)) for row in choices]

    def _forward(self, x: Tensor, run: Callable[[SearchableLayer, Tensor, int], Tensor], beta: Tensor) -> Tensor:
        """One layer after the other, each perhaps skipped."""
        for i, layer in enumerate(self.mixed_ops()):
            x = _perhaps(x, run(layer, x, i), beta, i)
        return x


def _perhaps(x: Tensor, out: Tensor, beta: Tensor, position: int) -> Tensor:
    """A layer's output and its input, weighted by whether it is skipped; the first layer never is."""
    if position == 0:
        return out
    stays, skipped = beta[position - 1].softmax(-1)
    return stays * out + skipped * x


DEPTH_SPACES: dict[str, type[SinkConnectedStage]] = {
    "sink": SinkConnectedStage,
    "skip_in": SkipInStage,
    "skip_out": SkipOutStage,
}


def candidate_mask(space: Space, depth_space: str) -> Tensor:
    """Which operations each layer has, (L, K) or, with skip among the candidates, (L, K + 1) booleans."""
    candidates = len(space.candidates)
    if not DEPTH_SPACES[depth_space].skip_is_candidate:
        layers = sum(stage.max_depth for stage in space.searchable_stages)
        return torch.ones(layers, candidates, dtype=torch.bool)
    rows = [
        [*[True] * candidates, position > 0] for stage in space.searchable_stages for position in range(stage.max_depth)
    ]
    return torch.tensor(rows)


def operation_logits(alphas: Tensor, mask: Tensor) -> Tensor:
    """alpha, and -inf where a layer does not have the operation."""
    return alphas if bool(mask.all()) else alphas.masked_fill(~mask.to(alphas.device), -torch.inf)
