"""One training step, one pass of training, one pass of evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.runtime.devices import autocast
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import RecipeParams
from tfnas.train.metrics import Metrics, MetricSums
from tfnas.train.recipe import make_optimizer, training_loss

Batches = Iterable[tuple[Tensor, Tensor]]  # (N, 3, H, W) images, (N,) labels

CHECK_LOSS_EVERY = 20  # steps; looking at a loss makes a GPU wait


class Stepper:
    """What a training step works on: the network and its optimizer, on a device at a precision."""

    def __init__(self, network: nn.Module, recipe: RecipeParams, *, device: torch.device, precision: str) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.recipe, self.device, self.precision = recipe, device, precision
        self.optimizer = make_optimizer(self.network, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def step(self, images: Tensor, labels: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """One step of SGD at a learning rate; returns the (N, K) logits and the mean loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with autocast(self.device, self.precision):
            logits = self.network(images)
            loss = training_loss(logits, labels, self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return logits.detach(), loss.detach()

    def state_dict(self) -> dict[str, Any]:
        return {part: getattr(self, part).state_dict() for part in ("network", "optimizer", "scaler")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, values in state.items():
            getattr(self, part).load_state_dict(values)


def train_epoch(stepper: Stepper, batches: Batches, rates: Iterable[float]) -> Metrics:
    """Train on every batch once, at the learning rate of each step.

    Returns:
        Loss (with label smoothing) and accuracies on the training batches, as each was trained on.

    Raises:
        NonFiniteLossError: with the first bad step.
    """
    stepper.network.train()
    sums, watch = MetricSums(stepper.device), LossWatch()
    for batch, rate in zip(batches, rates, strict=True):
        images, labels = to_device(batch, stepper.device)
        logits, loss = stepper.step(images, labels, rate)
        sums.add(logits, labels, loss)
        watch.add(loss)
    watch.check()
    return sums.result()


@torch.no_grad()
def evaluate(network: nn.Module, batches: Batches, *, device: torch.device, precision: str) -> Metrics:
    """Mean cross-entropy (without label smoothing), top-1 and top-5 over all images, a smaller last batch included."""
    network.eval()
    sums = MetricSums(device)
    for batch in batches:
        images, labels = to_device(batch, device)
        with autocast(device, precision):
            logits = network(images)
            loss = functional.cross_entropy(logits, labels)
        sums.add(logits, labels, loss)
    return sums.result()


def to_device(batch: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images in channels-last order (measured twice as fast on a CPU) and labels."""
    images, labels = batch
    images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    return images, labels.to(device, non_blocking=True)


class NonFiniteLossError(UserError):
    """The training diverged; `step` counts from 1 in its epoch."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"the loss is {value} at step {step}; lower the learning rate")
        self.step, self.value = step, value


class LossWatch:
    """Looks for a loss that is not finite, every `CHECK_LOSS_EVERY` steps and when asked."""

    def __init__(self) -> None:
        self._checked = 0
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
