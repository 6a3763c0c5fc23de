"""One pass of evaluation, and the watch over the loss of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.compute.devices import autocast
from tfnas.runtime.errors import UserError
from tfnas.train.metrics import Metrics, MetricSums
from tfnas.train.stepper import Batch, to_device

CHECK_LOSS_EVERY = 20  # steps; looking at a loss makes a GPU wait


def evaluate(network: nn.Module, batches: Iterable[Batch], *, device: torch.device, precision: str) -> Metrics:
    """Mean cross-entropy (without label smoothing), top-1 and top-5 over all images, a smaller last batch included.

    Of several processes, each evaluates its own batches and all get the numbers of all images.
    """
    sums = MetricSums(device)
    evaluate_sums(network, batches, sums, precision=precision)
    return sums.over_processes().result()


@torch.no_grad()
def evaluate_sums(network: nn.Module, batches: Iterable[Batch], sums: MetricSums, *, precision: str) -> None:
    """Add this process's batches to the sums, on their device, where the network must be."""
    network.eval()
    for batch in batches:
        images, labels = to_device(*batch, sums.device)
        with autocast(sums.device, precision):
            logits = network(images)
            loss = functional.cross_entropy(logits, labels)
        sums.add(logits, labels, loss)


class NonFiniteLossError(UserError):
    """The training diverged; `step` counts from 1 in its epoch."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"the loss is {value} at step {step}; lower the learning rate")
        self.step, self.value = step, value


class LossWatch:
    """Looks for a loss that is not finite, every `CHECK_LOSS_EVERY` steps and when asked.

    Args:
        done: steps of the epoch that are done already.
    """

    def __init__(self, done: int = 0) -> None:
        self._checked = done
        self._pending: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        self._pending.append(loss)
        if len(self._pending) == CHECK_LOSS_EVERY:
            self.check()

    def check(self) -> None:
        """Raise NonFiniteLossError for the first bad loss since the last check."""
        values = torch.stack(self._pending).tolist() if self._pending else []
        for step, value in enumerate(values, start=self._checked + 1):
            if not math.isfinite(value):
                raise NonFiniteLossError(step, value)
        self._checked += len(values)
        self._pending.clear()
