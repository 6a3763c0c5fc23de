"""Training the ranking network briefly on the data set itself, where no weights of others know its classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.compute.devices import autocast
from tfnas.data.loader import EpochLoader
from tfnas.runtime.errors import UserError
from tfnas.runtime.progress import track
from tfnas.runtime.schema import FitParams


def fit(
    network: nn.Module,
    loader: EpochLoader,
    params: FitParams,
    *,
    device: torch.device,
    precision: str,
    state: dict[str, Any] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """Train with Adam, its rate falling by a cosine to 0, then take BatchNorm's statistics anew.

    Ours: the paper's ranking network comes trained on ImageNet. Brief, so that classes still differ in accuracy.

    Args:
        state: what `on_epoch` was given after an epoch; go on from there.
        on_epoch: called after each epoch with all that the next one depends on.

    Raises:
        UserError: no whole batch, or a loss that is not finite.
    """
    steps = params.epochs * len(loader)
    if steps == 0:
        raise UserError("params.yaml: rank_classes.fit.batch_size is larger than the training set; lower it")
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=params.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    for name, part in parts.items() if state is not None else ():
        part.load_state_dict(state[name])
    done = 0 if state is None else state["epochs"]
    ticks = track(range(done * len(loader), steps), label="rank_classes: fit", total=steps - done * len(loader))
    loss = torch.zeros(())
    for epoch in range(done, params.epochs):
        loader.set_epoch(epoch)
        for (images, labels), _ in zip(loader, ticks, strict=False):
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(network, images, labels, device=device, precision=precision)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
        on_epoch({"epochs": epoch + 1} | {name: part.state_dict() for name, part in parts.items()})
    if not math.isfinite(loss.item()):
        raise UserError("params.yaml: rank_classes.fit: the loss is not finite; lower fit.learning_rate")
    loader.set_epoch(params.epochs - 1)  # also where all epochs were done before
    estimate_statistics(network, loader, device=device, precision=precision)


def cross_entropy(
    network: nn.Module, images: Tensor, labels: Tensor, *, device: torch.device, precision: str
) -> Tensor:
    """The mean loss of a batch, (N, 3, H, W) and (N,), computed on the device."""
    with autocast(device, precision):
        logits = network(images.to(device, non_blocking=True))
        return functional.cross_entropy(logits, labels.to(device, non_blocking=True))


@torch.no_grad()
def estimate_statistics(network: nn.Module, loader: EpochLoader, *, device: torch.device, precision: str) -> None:
    """Put the means over all batches of an epoch in place of BatchNorm's running ones.

    After a few dozen steps those still hold what the first steps saw: on the digits a network that had learned
    nine tenths of its batches gave one and the same class to every image.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    network.train()
    for images, _ in loader:
        with autocast(device, precision):
            network(images.to(device, non_blocking=True))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
