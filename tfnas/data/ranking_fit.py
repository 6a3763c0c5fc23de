"""Training the ranking network briefly on the data set itself, where no weights of others know its classes."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tfnas.data.loader import EpochLoader
from tfnas.runtime.devices import autocast
from tfnas.runtime.errors import UserError
from tfnas.runtime.progress import track
from tfnas.runtime.schema import FitParams


def fit(network: nn.Module, loader: EpochLoader, params: FitParams, *, device: torch.device, precision: str) -> None:
    """Train with Adam, its rate falling by a cosine to 0, then take BatchNorm's statistics anew.

    Ours: the paper's ranking network comes trained on ImageNet. Brief, so that classes still differ in accuracy.

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
    ticks = track(range(steps), label="rank_classes: fit", total=steps)
    loss = torch.zeros(())
    for epoch in range(params.epochs):
        loader.set_epoch(epoch)
        for (images, labels), _ in zip(loader, ticks, strict=False):
            with autocast(device, precision):
                logits = network(images.to(device, non_blocking=True))
                loss = functional.cross_entropy(logits, labels.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
    if not math.isfinite(loss.item()):
        raise UserError("params.yaml: rank_classes.fit: the loss is not finite; lower fit.learning_rate")
    estimate_statistics(network, loader, device=device, precision=precision)


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
