"""One training step of Appendix B's recipe: in one process or several, on a whole batch or on its parts.

The recipe: SGD, linear warm-up, cosine to zero, label smoothing.

N batch, C channels, H W size, K classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tfnas.compute import distributed
from tfnas.compute.devices import autocast
from tfnas.compute.distributed import statistics_over_processes
from tfnas.data.images.loader import Batch
from tfnas.train.distillation import Distillation
from tfnas.train.params import ExtrasParams, RecipeParams

if TYPE_CHECKING:
    from torchvision.transforms import v2

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def step_learning_rate(step: int, steps_per_epoch: int, recipe: RecipeParams) -> float:
    """Learning rate of a step, counted from 0 over the whole training.

    Linear over `warmup_epochs` up to `recipe.learning_rate`, which the last warm-up step has, then half a
    cosine that would reach 0 one step after the last. The authors' code keeps the rate constant within an epoch
    and lets the cosine run during the warm-up too.
    """
    assert step >= 0, step
    warmup_steps = recipe.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / warmup_steps
    cosine_steps = recipe.epochs * steps_per_epoch - warmup_steps
    progress = min((step - warmup_steps) / max(cosine_steps, 1), 1.0)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimizer(network: nn.Module, recipe: RecipeParams) -> torch.optim.SGD:
    """SGD with momentum on every trained parameter; its learning rate is set before each step.

    Weight decay applies to all of them (Appendix B and the authors' code), or only to the kernels of convolutions and
    the classifier's matrix where `extras.decay_norm_and_bias` is false.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = [p for p in trained if recipe.extras.decay_norm_and_bias or p.ndim > 1]
    others = [p for p in trained if not recipe.extras.decay_norm_and_bias and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
    )


def training_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of (N, K) logits against (N,) labels, or (N, K) mixed ones, that are smoothed to
    `(1 - label_smoothing) * onehot + label_smoothing / K`.
    """
    return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)


class TrainingStepper:
    """The network on its device, its optimizer and, where the recipe asks for one, its moving average.

    Attributes:
        network: the trained network. After a step it is the same in all processes, except for BatchNorm's running
            statistics: the first process's are authoritative, and all get them before the next step.
        evaluated: the network to validate and to write: the moving average where there is one, else `network`.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: RecipeParams,
        *,
        device: torch.device,
        precision: str,
        distillation: Distillation | None = None,
    ) -> None:
        self.recipe, self.device, self.precision, self.distillation = recipe, device, precision, distillation
        order = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network = network.to(device).to(memory_format=order)
        if recipe.sync_batchnorm and distributed.is_active():
            synchronize_batchnorm(self.network, device)
        self.optimizer = make_optimizer(self.network, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        self._parallel = _parallel(self.network, device) if distributed.is_active() else None
        self.average = _moving_average(self.network, recipe.extras.ema_decay)  # of weights that now agree
        runs = self._parallel or self.network
        self._runs = torch.compile(runs) if recipe.compile else runs

    def train_mode(self) -> None:
        """Training mode, except for frozen parts: those keep their BatchNorm statistics and use no dropout."""
        self.network.train()
        for part in self.network.children():
            parameters = list(part.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                part.eval()

    @property
    def evaluated(self) -> nn.Module:
        return self.network if self.average is None else self.average.module

    def step(self, parts: Sequence[Batch], rate: float) -> list[Computed]:
        """One step of SGD at a learning rate, with the mean gradient over the equally large parts of a batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        computed = []
        for number, part in enumerate(parts, start=1):
            with self._without_averaging() if number < len(parts) else nullcontext():
                computed.append(self._compute(*part, share=1 / len(parts)))
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return computed

    def _compute(self, images: Tensor, labels: Tensor, share: float) -> Computed:
        """Forward and backward; the gradient is weighted by the part's share of the batch."""
        images, labels = self.to_device(images, labels)
        mixed, shares = images, labels
        with autocast(self.device, self.precision):
            if self.recipe.extras.mixup or self.recipe.extras.cutmix:
                mixed, shares = self._mix(images, labels)
            logits = self._runs(mixed)
            loss = training_loss(logits, shares, self.recipe.label_smoothing)
            if self.distillation is not None:
                loss = self.distillation.loss(loss, logits, mixed)
        self.scaler.scale(loss * share if share != 1 else loss).backward()
        return Computed(logits.detach(), labels, loss.detach())

    def _clip(self) -> None:
        """Shorten the gradient g of all weights together to min(1, gradient_clip / |g|) g, as the search does.

        It is that of the whole batch over all processes. One that overflowed float16 is left to the scaler, which
        skips the step.
        """
        if self.recipe.gradient_clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.gradient_clip)

    def _mix(self, images: Tensor, labels: Tensor) -> Batch:
        linear = self.network.get_submodule("classifier.linear")
        assert isinstance(linear, nn.Linear)
        mix = make_mix(self.recipe.extras, linear.out_features)
        assert mix is not None
        return mix(images, labels)

    def to_device(self, images: Tensor, labels: Tensor) -> Batch:
        """A batch on the device, images in the network's memory order (channels-last is twice as fast on a CPU)."""
        return to_device(images, labels, self.device, channels_last=self.recipe.channels_last)

    def _without_averaging(self) -> AbstractContextManager[object]:
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


class Computed(NamedTuple):
    """What a step computed for one part of its batch, before the weights changed."""

    logits: Tensor  # (N, K)
    labels: Tensor  # (N,)
    loss: Tensor  # mean


def to_device(images: Tensor, labels: Tensor, device: torch.device, *, channels_last: bool = True) -> Batch:
    """A batch on a device."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    images = images.to(device, memory_format=order, non_blocking=True)
    return images, labels.to(device, non_blocking=True)


def make_mix(extras: ExtrasParams, num_classes: int) -> Mix | None:
    """Mixup and CutMix (torchvision's; not in the paper, off by default); None where both are off.

    Turns (N, 3, H, W) images and (N,) labels into mixed images and (N, K) class shares. With both on, each batch goes
    through one of the two, with equal probability. Randomness comes from torch's global generator.
    """
    if not extras.mixup and not extras.cutmix:
        return None
    from torchvision.transforms import v2

    kinds: list[v2.Transform] = []
    if extras.mixup:
        kinds.append(v2.MixUp(alpha=extras.mixup, num_classes=num_classes))
    if extras.cutmix:
        kinds.append(v2.CutMix(alpha=extras.cutmix, num_classes=num_classes))
    return kinds[0] if len(kinds) == 1 else v2.RandomChoice(kinds)


def _parallel(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Averages gradients over the processes; the first one's buffers go to all before each step."""
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def _moving_average(network: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of weights and running statistics, starting with the first step."""
    if decay == 0:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def synchronize_batchnorm(network: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm of a network a synchronized one with the same weights, in place."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm  # same parameters, buffers and options


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the equally large batches of all processes, on CPUs; torch.nn.SyncBatchNorm needs GPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        if not self.training or not distributed.is_active():
            return super().forward(input)
        centered, mean, variance = statistics_over_processes(input)
        self._update(mean.detach(), variance.detach(), count=input.numel() // input.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centered * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        """Update the running statistics as BatchNorm2d does, with the unbiased variance."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        values = count * distributed.world_size()
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)
