"""The supernet: every candidate of every layer, and the distribution over them (Sec. 3.2).

N batch, H W size, L searchable layers, K candidate operations, D layers of a stage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from tfnas.latency import OperationKey
from tfnas.search.constraint import Constraint
from tfnas.search.cost import Cost
from tfnas.search.derivation.strongest import Derived, searchable_layers, stage_slices
from tfnas.search.derivation.within_budget import derive_by
from tfnas.search.supernet.depth_spaces import DEPTH_SPACES, candidate_mask, operation_logits
from tfnas.search.supernet.mixed_op import BatchNorm, MixedOp, Operation, SearchableLayer
from tfnas.search.supernet.sink_connecting import SinkConnectedStage
from tfnas.search.supernet.weight_entanglement import EntangledOp
from tfnas.space import Space
from tfnas.space.membership import fixed_blocks
from tfnas.space.network import MBInvRes, conv_unit

WEIGHT_SHARING: dict[str, type[MixedOp | EntangledOp]] = {"none": MixedOp, "entangled": EntangledOp}


class Supernet(nn.Module):
    """Stem, fixed and searchable stages, head, classifier; BatchNorm uses batch statistics always.

    Attributes:
        alphas: (L, K) architecture parameters of the operations; (L, K + 1) with skip among the candidates.
        candidate_mask: (L, K) or (L, K + 1) booleans, which operations each layer has.
        betas: (D,) architecture parameters of the depths, one for each searchable stage; of another shape in the
            alternatives to sink-connecting.

    Args:
        depth_space: a key of `DEPTH_SPACES`.
        weight_sharing: a key of `WEIGHT_SHARING`.
    """

    def __init__(self, space: Space, num_classes: int, depth_space: str = "sink", weight_sharing: str = "none") -> None:
        super().__init__()
        self.space, self.num_classes = space, num_classes
        self.depth_space, self.weight_sharing = depth_space, weight_sharing
        stem, head = space.stem, space.head
        self.stem = conv_unit(stem.in_channels, stem.out_channels, stem.kernel, stride=stem.stride, act=stem.act)
        self.stages = nn.ModuleList(_stages(space, DEPTH_SPACES[depth_space], WEIGHT_SHARING[weight_sharing]))
        self.head = conv_unit(space.stages[-1].out_channels, head.out_channels, 1, act=head.act)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(head.out_channels, num_classes)
        _use_batch_statistics(self)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.candidate_mask = candidate_mask(space, depth_space)
        begin = operation_logits(torch.zeros(self.candidate_mask.shape), self.candidate_mask).log_softmax(-1)
        self.alphas = nn.Parameter(begin.masked_fill(~self.candidate_mask, 0.0))
        initial_beta = DEPTH_SPACES[depth_space].initial_beta
        self.betas = nn.ParameterList(initial_beta(stage.max_depth) for stage in space.searchable_stages)

    def forward_path(self, x: Tensor, path: Tensor) -> Tensor:
        """One operation per layer, (L,); (N, 3, H, W) images to (N, num_classes) logits."""
        return self.forward_paths(x, [path])[0]

    def forward_paths(self, x: Tensor, paths: Sequence[Tensor]) -> list[Tensor]:
        """Logits of several paths; they share what comes before the first searchable stage."""
        x = self._before_search(x)
        return [self._follow(x, path.tolist()) for path in paths]

    def _follow(
        self, x: Tensor, path: Sequence[int], weights: Sequence[Tensor] | None = None, *, recompute: bool = False
    ) -> Tensor:
        def run(stage: SinkConnectedStage, y: Tensor, own: slice, beta: Tensor) -> Tensor:
            return stage.forward_path(
                y, path[own], beta, None if weights is None else weights[own], recompute=recompute
            )

        return self._search(x, run)

    def forward_derived(self, x: Tensor, networks: Sequence[Derived]) -> list[Tensor]:
        """Logits of derived networks, with the weights and widths that their operations have in the supernet.

        Unlike in `forward_paths`, a stage ends at the network's own depth. The networks share what comes before the
        first searchable stage.
        """
        x = self._before_search(x)
        return [self._follow_derived(x, network) for network in networks]

    def _follow_derived(self, x: Tensor, network: Derived) -> Tensor:
        operations, kept = network.operations, network.kept
        return self._search(x, lambda stage, y, own, _: stage.forward_derived(y, operations[own], kept[own]))

    def forward_mixed(self, x: Tensor, weights: Tensor, *, recompute: bool = False) -> Tensor:
        """All operations, weighted by the (L, K) u of Eq. 3; images to logits.

        Args:
            recompute: keep no activations of searchable layers for the backward pass, which computes them again.
        """
        return self._search(
            self._before_search(x),
            lambda stage, y, own, beta: stage.forward_mixed(y, weights[own], beta, recompute=recompute),
        )

    def forward_sampled(self, x: Tensor, weights: Tensor, *, recompute: bool = False) -> Tensor:
        """One operation in each layer, the one with the largest u of Eq. 3; images to logits.

        Sec. 3.1: "only one operation with max u is chosen during forward pass. And the gradients of all the alpha can
        be back-propagated through Eq. (3)". The paper cites GDAS for it (Dong and Yang, 2019), so the value is that of
        GDAS: argmax forward, softmax backward. Layer l computes (1 + u_k - stop(u_k)) o_k(x), whose value is o_k(x),
        exactly what a weight step trains and what a derived network computes; with u_k o_k(x) instead, a layer would
        shrink its residual input against the next layer's normalized output. The gradient of u_k is the inner product
        of o_k(x) with the gradient of the layer's output in both readings, that of the others is zero, and alpha gets
        u_k (delta_jk - u_j) / tau times it.

        A layer's scale has no effect where BatchNorm follows and no sink or residual adds anything: the gradient of
        cross-entropy is then zero (stage 8 of Table 1). That lies in the method; all operations at once have no such
        gap.

        Args:
            weights: (L, K) u of Eq. 3.
            recompute: keep no activations of searchable layers for the backward pass, which computes them again.
        """
        path = weights.argmax(-1)
        chosen = weights.gather(-1, path[:, None]).squeeze(-1)
        factors = 1 + (chosen - chosen.detach())
        return self._follow(self._before_search(x), path.tolist(), factors.unbind(), recompute=recompute)

    def _before_search(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in itertools.takewhile(_is_fixed, self.stages):
            x = stage(x)
        return x

    def _search(self, x: Tensor, run: Callable[[SinkConnectedStage, Tensor, slice, Tensor], Tensor]) -> Tensor:
        first, betas = 0, iter(self.betas)
        for stage in itertools.dropwhile(_is_fixed, self.stages):
            if isinstance(stage, SinkConnectedStage):
                x = run(stage, x, slice(first, first + len(stage)), next(betas))
                first += len(stage)
            else:
                x = stage(x)
        return self.classifier(self.pool(self.head(x)).flatten(1))

    def expected_cost(self, weights: Tensor, operation_costs: Tensor, base: float) -> Tensor:
        """LAT(alpha, beta) of Eq. 6 plus the fixed part, for operation weights u and what operations cost, (L, K); ().

        Where skip is among the candidates, u has one more column, and skip costs nothing.
        """
        layer_costs = (weights[:, : operation_costs.shape[1]] * operation_costs).sum(-1)
        stage_cost = DEPTH_SPACES[self.depth_space].expected_cost
        parts = zip(stage_slices(self.space), self.betas, strict=True)
        return base + torch.stack([stage_cost(layer_costs[i:j], beta) for (i, j), beta in parts]).sum()

    def operation_logits(self) -> Tensor:
        """alpha, and -inf where a layer does not have the operation (skip, in the first layer of a stage)."""
        return operation_logits(self.alphas, self.candidate_mask)

    @torch.no_grad()
    def normalize_architecture(self) -> None:
        """Replace alpha and beta by their log-softmax (as in the authors' code, after each architecture step)."""
        absent = ~self.candidate_mask.to(self.alphas.device)
        self.alphas.copy_(self.operation_logits().log_softmax(-1).masked_fill(absent, 0.0))
        for beta in self.betas:
            beta.copy_(beta.log_softmax(-1))

    def operation_costs(self, cost: Cost) -> Tensor:
        """(L, K), what all operations cost at their current widths."""
        rows = []
        for layer, widths in zip(searchable_layers(self.space, cost.resolution), self.widths(), strict=True):
            candidates = zip(self.space.candidates, widths, strict=True)
            rows.append([cost.operation(OperationKey.of_candidate(layer, c), width) for c, width in candidates])
        return torch.tensor(rows, dtype=torch.float32, device=self.alphas.device)

    def weight_parameters(self) -> list[Tensor]:
        """Everything that weight steps train: the omega of Eq. 2.

        Of the active channels; with entangled weights of all.
        """
        architecture = {id(parameter) for parameter in self.architecture_parameters()}
        searched = [leaf for layer in self.searchable_layers() for leaf in layer.leaves()]
        others = architecture | {id(leaf) for leaf in searched}
        return [parameter for parameter in self.parameters() if id(parameter) not in others] + searched

    def architecture_parameters(self) -> list[Tensor]:
        """What architecture steps train: alpha and beta."""
        return [self.alphas, *self.betas]

    def searchable_layers(self) -> Iterator[SearchableLayer]:
        """The L searchable layers in order."""
        return (module for module in self.modules() if isinstance(module, SearchableLayer))

    def operations(self) -> Iterator[Operation]:
        """All L times K candidate operations in order."""
        return (operation for layer in self.searchable_layers() for operation in layer.all_operations())

    def widths(self) -> list[list[int]]:
        """Active expansion channels of every operation, (L, K)."""
        flat = [operation.width for operation in self.operations()]
        size = len(self.space.candidates)
        return [flat[i : i + size] for i in range(0, len(flat), size)]

    def restore_widths(self, widths: Sequence[Sequence[int]]) -> None:
        """The (L, K) widths of a saved state, whose most important channels come first already."""
        flat = [width for row in widths for width in row]
        for operation, width in zip(self.operations(), flat, strict=True):
            operation.restore_width(width)

    def derive(self, name: str, constraint: Constraint | None = None, within: str = "strongest") -> Derived:
        """The network at the current widths (Eq. 10, 11), as `derive_by` derives it."""
        found = self.alphas, list(self.betas), self.widths(), name, self.depth_space
        return derive_by(within, constraint, self.space, *found)


def _stages(
    space: Space, searchable: type[SinkConnectedStage], kind: type[MixedOp | EntangledOp]
) -> Iterator[nn.Module]:
    blocks = fixed_blocks(space)
    for spec in space.stages:
        if spec.fixed is not None:
            yield nn.Sequential(*(MBInvRes(block) for block in blocks if block.stage == spec.stage))
        else:
            layers = [layer for layer in space.layers() if layer.stage == spec.stage]
            yield searchable(layers, space.candidates, kind)


def _is_fixed(stage: nn.Module) -> bool:
    return not isinstance(stage, SinkConnectedStage)


def _use_batch_statistics(module: nn.Module) -> None:
    """Replace every BatchNorm by one without learned factors and running statistics (as in the authors' code)."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, BatchNorm())
        else:
            _use_batch_statistics(child)
