"""One weight step, one architecture step, one look at the validation set (Eq. 7, 8).

N batch, L searchable layers, K candidate operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.compute import distributed
from tfnas.compute.devices import autocast
from tfnas.data.images.loader import Batch
from tfnas.jobs.errors import NonFiniteLossError
from tfnas.search.constraint import Constraint
from tfnas.search.cost import cost_loss
from tfnas.search.derivation.strongest import Derived
from tfnas.search.sampling import gumbel_softmax
from tfnas.search.state import SearchState, Setting


class Correct(NamedTuple):
    """Images that a path classifies correctly."""

    top1: int
    top5: int  # the label is among the five strongest classes


class WeightStep(NamedTuple):
    loss: float  # cross-entropy of the first path
    correct: Correct  # of the images, by the first path
    images: int


class ArchitectureStep(NamedTuple):
    cross_entropy: float
    cost_loss: float  # C(LAT), without lambda


class Stepper:
    """The steps of one epoch on a search's state: widths stay as they are.

    Where several processes work on the search, each has its part of the batch; losses are means and counts are sums
    over all of them, and all of them take the same step.

    Args:
        constraint: None in a warm-up, which takes no architecture steps.
    """

    def __init__(self, state: SearchState, setting: Setting, constraint: Constraint | None) -> None:
        self.state, self.supernet = state, state.supernet
        self._params, self._precision, self._constraint = setting.params, setting.precision, constraint
        self._device = state.supernet.alphas.device
        self._weights = self.supernet.weight_parameters()
        self._architecture = self.supernet.architecture_parameters()
        if constraint is not None:
            self._operation_costs = self.supernet.operation_costs(constraint.cost)  # (L, K)

    def weight_step(self, batch: Batch, paths: Sequence[Tensor]) -> WeightStep:
        """SGD on the sum of the losses of the sampled paths, (L,) each (Eq. 8).

        One forward per path, a single backward.
        """
        images, labels = self._to_device(batch)
        self._train(weights=True)
        with autocast(self._device, self._precision):
            logits = self.supernet.forward_paths(images, paths)
            losses = torch.stack([functional.cross_entropy(scores, labels) for scores in logits])
        loss = losses.sum()
        first = _finite(distributed.mean(losses.detach()), "weight")[0]
        self._update(loss, self._weights, self.state.weight_optimizer, self.state.weight_scaler)
        return WeightStep(first, _count_correct(logits[0], labels), len(labels) * distributed.group_size())

    def architecture_step(self, batch: Batch, temperature: float, noise: Tensor) -> ArchitectureStep:
        """Adam on alpha and beta: cross-entropy + lambda * C(LAT) (Eq. 7, 9).

        Cross-entropy of all operations in parallel, or of one per layer (`search.architecture.paths`); LAT of all.

        Args:
            noise: Gumbel(0, 1), (L, K).
        """
        images, labels = self._to_device(batch)
        self._train(weights=False)
        one = self._params.architecture.paths == "one"
        forward = self.supernet.forward_sampled if one else self.supernet.forward_mixed
        operation_weights = gumbel_softmax(self.supernet.operation_logits(), temperature, noise)
        with autocast(self._device, self._precision):
            logits = forward(images, operation_weights, recompute=self._params.recompute)
            cross_entropy = functional.cross_entropy(logits, labels)
        excess = self._cost_loss(operation_weights)
        loss = cross_entropy + self._params.lambda_ * excess
        found = _finite(distributed.mean(torch.stack([cross_entropy.detach(), excess.detach()])), "architecture")
        self._update(loss, self._architecture, self.state.architecture_optimizer, self.state.architecture_scaler)
        if self._params.architecture.log_softmax:
            self.supernet.normalize_architecture()
        return ArchitectureStep(*found)

    @torch.no_grad()
    def count_correct(self, batch: Batch, path: Tensor) -> Correct:
        """Images of the batch that a path classifies correctly (BatchNorm uses the batch here, too)."""
        images, labels = self._to_device(batch)
        with autocast(self._device, self._precision):
            logits = self.supernet.forward_path(images, path)
        return _count_correct(logits, labels)

    @torch.no_grad()
    def count_correct_derived(self, batch: Batch, networks: Sequence[Derived]) -> Tensor:
        """Images of the batch whose strongest class is right, by each of P derived networks; (P,) counts.

        The weights are the supernet's, and BatchNorm uses the batch.
        """
        images, labels = self._to_device(batch)
        with autocast(self._device, self._precision):
            logits = self.supernet.forward_derived(images, networks)
        return distributed.total(torch.stack([(scores.argmax(-1) == labels).sum() for scores in logits])).cpu()

    @torch.no_grad()
    def expected_cost(self) -> float:
        """LAT(alpha, beta), Eq. 6, with u = softmax(alpha)."""
        return float(self._expected_cost(self.supernet.operation_logits().softmax(-1)))

    def _expected_cost(self, operation_weights: Tensor) -> Tensor:
        assert self._constraint is not None
        return self.supernet.expected_cost(operation_weights, self._operation_costs, self._constraint.cost.base)

    def _cost_loss(self, operation_weights: Tensor) -> Tensor:
        assert self._constraint is not None
        expected, params = self._expected_cost(operation_weights), self._params
        return cost_loss(expected, self._constraint.limit, params.latency_loss, lambda_2=params.lambda_2)

    def _train(self, *, weights: bool) -> None:
        """Either the weights or alpha and beta get gradients; nothing is kept or computed for the others."""
        for parameter in self._weights:
            parameter.requires_grad_(weights)
        for parameter in self._architecture:
            parameter.requires_grad_(not weights)

    def _update(
        self, loss: Tensor, parameters: list[Tensor], optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> None:
        """Backward, clip, step.

        Operations off the sampled paths have no gradient and stay as they are. (In the authors' code their gradient
        is zero and not absent, once they were sampled in an epoch, so momentum and weight decay move them on.)
        """
        optimizer.zero_grad(set_to_none=True)
        scaled: Tensor = scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]
        distributed.average_gradients(parameters)
        scaler.unscale_(optimizer)
        if self._params.gradient_clip > 0:
            nn.utils.clip_grad_norm_(parameters, self._params.gradient_clip)
        scaler.step(optimizer)
        scaler.update()

    @staticmethod
    def batch_size(batch: Batch) -> int:
        """Images of a batch, those of the other processes included."""
        return len(batch[1]) * distributed.group_size()

    def _to_device(self, batch: Batch) -> Batch:
        images, labels = batch
        images = images.to(self._device, memory_format=torch.channels_last, non_blocking=True)
        return images, labels.to(self._device, non_blocking=True)


def _count_correct(logits: Tensor, labels: Tensor) -> Correct:
    strongest = logits.topk(min(5, logits.shape[-1])).indices == labels[:, None]  # (N, 5)
    return Correct(*distributed.total(torch.stack([strongest[:, 0].sum(), strongest.sum()])).tolist())


def _finite(losses: Tensor, kind: str) -> list[float]:
    values: list[float] = losses.tolist()
    for value in values:
        if not math.isfinite(value):
            raise NonFiniteLossError(value, loss=f"{kind} loss")
    return values
