"""One training step: of one process or of several, of a whole batch or of its parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tfnas.compute import distributed
from tfnas.compute.devices import autocast
from tfnas.runtime.schema import RecipeParams
from tfnas.train.mixing import make_mix
from tfnas.train.recipe import make_optimizer, training_loss
from tfnas.train.sync_batchnorm import synchronise_batchnorm

Batch = tuple[Tensor, Tensor]  # (N, 3, H, W) images, (N,) labels


class Computed(NamedTuple):
    """What a step saw of a part of its batch, before its weights changed."""

    logits: Tensor  # (N, K)
    labels: Tensor  # (N,)
    loss: Tensor  # mean


class Stepper:
    """What a training step works on: the network, its optimizer, perhaps a moving average, on a device.

    Attributes:
        network: as it is trained; its state is the same in all processes after a step, but for BatchNorm's running
            statistics, where the first process's count (all get them before the next step).
        evaluated: what to validate and to write: the moving average where there is one, else `network`.
    """

    def __init__(self, network: nn.Module, recipe: RecipeParams, *, device: torch.device, precision: str) -> None:
        self.recipe, self.device, self.precision = recipe, device, precision
        order = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network = network.to(device).to(memory_format=order)
        if recipe.sync_batchnorm and distributed.is_active():
            synchronise_batchnorm(self.network, device)
        self.optimizer = make_optimizer(self.network, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        self._parallel = _parallel(self.network, device) if distributed.is_active() else None
        self.average = _moving_average(self.network, recipe.extras.ema_decay)  # of weights that are the same by now
        runs = self._parallel or self.network
        self._runs = torch.compile(runs) if recipe.compile else runs

    def train_mode(self) -> None:
        """Training mode, but for parts that are not trained: their BatchNorm keeps its statistics, none is dropped."""
        self.network.train()
        for part in self.network.children():
            parameters = list(part.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                part.eval()

    @property
    def evaluated(self) -> nn.Module:
        return self.network if self.average is None else self.average.module

    def step(self, parts: Sequence[Batch], rate: float) -> list[Computed]:
        """One step of SGD at a learning rate, by the mean gradient over the parts of a batch, of one size each."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        computed = []
        for number, part in enumerate(parts, start=1):
            with self._sum_up_later() if number < len(parts) else nullcontext():
                computed.append(self._compute(*part, share=1 / len(parts)))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return computed

    def _compute(self, images: Tensor, labels: Tensor, share: float) -> Computed:
        """Forward and backward; the gradient counts by its share."""
        images, labels = self.to_device(images, labels)
        mixed, shares = images, labels
        with autocast(self.device, self.precision):
            if self.recipe.extras.mixup or self.recipe.extras.cutmix:
                mixed, shares = self._mix(images, labels)
            logits = self._runs(mixed)
            loss = training_loss(logits, shares, self.recipe.label_smoothing)
        self.scaler.scale(loss * share if share != 1 else loss).backward()
        return Computed(logits.detach(), labels, loss.detach())

    def _mix(self, images: Tensor, labels: Tensor) -> Batch:
        linear = self.network.get_submodule("classifier.linear")
        assert isinstance(linear, nn.Linear)
        mix = make_mix(self.recipe.extras, linear.out_features)
        assert mix is not None
        return mix(images, labels)

    def to_device(self, images: Tensor, labels: Tensor) -> Batch:
        """Images in the memory order of the network (channels-last: measured twice as fast on a CPU), and labels."""
        return to_device(images, labels, self.device, channels_last=self.recipe.channels_last)

    def _sum_up_later(self) -> AbstractContextManager[object]:
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    def share_buffers(self) -> None:
        """Give all processes the first one's running statistics."""
        averaged = [] if self.average is None else self.average.buffers()
        for buffer in itertools.chain(self.network.buffers(), averaged):
            distributed.copy_first(buffer)

    def state_dict(self) -> dict[str, Any]:
        return {part: getattr(self, part).state_dict() for part in self._parts()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part in self._parts():
            getattr(self, part).load_state_dict(state[part])

    def _parts(self) -> list[str]:
        return ["network", "optimizer", "scaler"] + (["average"] if self.average is not None else [])


def to_device(images: Tensor, labels: Tensor, device: torch.device, *, channels_last: bool = True) -> Batch:
    """A batch on a device."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    images = images.to(device, memory_format=order, non_blocking=True)
    return images, labels.to(device, non_blocking=True)


def _parallel(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Averages gradients over the processes; the first one's buffers go to all before each step."""
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def _moving_average(network: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of weights and running statistics, from the first step's on."""
    if decay == 0:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
