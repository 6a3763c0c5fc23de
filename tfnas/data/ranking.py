"""Ranking classes by accuracy (Appendix B): EfficientNet-B0 with ImageNet's weights, a file's, or briefly trained here.

The result is class_accuracy.csv, the top-1 accuracy of each class.
"""

from __future__ import annotations

import hashlib
import math
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.compute.devices import autocast
from tfnas.data.images.loader import EpochLoader
from tfnas.data.params import FitParams
from tfnas.jobs.errors import UserError
from tfnas.jobs.progress import track
from tfnas.jobs.state_dicts import find_mismatch, read_state_dict

FIT, IMAGENET = "fit", "imagenet"
CLASSIFIER = "classifier.1.weight"  # (K, 1280)
IMAGENET_CLASSES = 1000
IMAGENET_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"  # of its sorted WordNet ids
WNID = re.compile(r"n\d{8}")
DOWNLOAD_SECONDS = 30  # of silence from the server
ALTERNATIVES = "write `fit`, which trains it here, or a file of weights"


def count_correct(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    device: torch.device,
    precision: str,
) -> tuple[list[int], list[int]]:
    """Images of each class, and those whose largest logit is their label's.

    Args:
        batches: (N, 3, H, W) images, (N,) labels; how they are batched changes the result only by rounding in the
            last bit.
    """
    network.eval()
    images = torch.zeros(num_classes, dtype=torch.int64, device=device)
    correct = torch.zeros_like(images)
    for pictures, labels in batches:
        labels = labels.to(device, non_blocking=True)
        with torch.no_grad(), autocast(device, precision):
            logits = network(pictures.to(device, non_blocking=True))  # (N, K)
        images += labels.bincount(minlength=num_classes)
        correct += labels[logits.argmax(1) == labels].bincount(minlength=num_classes)
    return images.tolist(), correct.tolist()


def load_ranking_network(weights: str, classes: Sequence[str]) -> nn.Module:
    """EfficientNet-B0 with ImageNet's weights, which torchvision downloads, or with those of a file.

    Args:
        weights: `imagenet` or a state dict in a file that `torch.save` wrote; runs no code from the file.
        classes: of the data set, in the order of labels.

    Raises:
        UserError: no download, no such file, other weights, or a network of other classes.
    """
    check_ranking_weights(weights, classes)
    state = _download() if weights == IMAGENET else _read_state(Path(weights))
    network = build_ranking_network(len(classes))
    network.load_state_dict(state)
    return network


def build_ranking_network(num_classes: int) -> nn.Module:
    """torchvision's EfficientNet-B0 with random weights; without dropout and drop-connect, as it is trained briefly."""
    from torchvision.models import efficientnet_b0

    return efficientnet_b0(num_classes=num_classes, dropout=0.0, stochastic_depth_prob=0.0)


def check_ranking_weights(weights: str, classes: Sequence[str]) -> None:
    """Raise UserError when the weights cannot be those of these classes; downloads nothing."""
    if weights == FIT:
        return
    if weights == IMAGENET:
        mismatch = imagenet_mismatch(classes)
        if mismatch is not None:
            raise UserError(
                f"params.yaml: rank_classes.weights: imagenet knows the 1,000 classes of ImageNet by the order of"
                f" their WordNet ids, but {mismatch}; {ALTERNATIVES}"
            )
        return
    path = Path(weights)
    state = _read_state(path)
    known = len(state[CLASSIFIER])
    if known != len(classes):
        raise UserError(
            f"{path}: knows {known} classes, the data set has {len(classes)}; pass weights that were trained on its"
            f" classes in sorted order, or write rank_classes.weights: fit"
        )
    mismatch = unverified_order(classes)
    if mismatch is not None:
        raise UserError(
            f"{path}: knows {known} classes by their order, but {mismatch}; write rank_classes.weights: fit"
        )


def imagenet_mismatch(classes: Sequence[str]) -> str | None:
    """Why these are not ImageNet's classes in the order of its labels; None when they are."""
    if len(classes) != IMAGENET_CLASSES:
        return f"the data set has {len(classes)} classes"
    other = next((name for name in classes if not WNID.fullmatch(name)), None)
    if other is not None:
        return f"class {other!r} is no WordNet id"
    if list(classes) != sorted(classes):
        return "the classes are not in sorted order"
    digest = hashlib.sha256("\n".join(classes).encode()).hexdigest()
    return None if digest == IMAGENET_SHA256 else "some of the data set's WordNet ids are not among ImageNet's 1,000"


def unverified_order(classes: Sequence[str]) -> str | None:
    """Why weights that know as many classes as ImageNet cannot know these; None for ImageNet's and for any others."""
    return imagenet_mismatch(classes) if _looks_like_imagenet(classes) else None


def _looks_like_imagenet(classes: Sequence[str]) -> bool:
    return len(classes) == IMAGENET_CLASSES and all(WNID.fullmatch(name) for name in classes)


def _download() -> dict[str, Tensor]:
    from torchvision.models import EfficientNet_B0_Weights

    weights = EfficientNet_B0_Weights.IMAGENET1K_V1
    try:
        with _short_timeout():
            return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu"))
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another hash
        reason = getattr(error, "reason", error)
        place = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"params.yaml: rank_classes.weights: imagenet: {weights.url} cannot be downloaded ({reason}); put that"
            f" file into {place}, or {ALTERNATIVES}"
        ) from None


@contextmanager
def _short_timeout() -> Iterator[None]:
    """Give up on a silent server after half a minute; torch itself sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read_state(path: Path) -> dict[str, Tensor]:
    fix = "pass a state dict of torchvision's EfficientNet-B0, or write rank_classes.weights: fit or imagenet"
    if not path.is_file():
        raise UserError(f"{path}: is missing (rank_classes.weights); {fix}")
    state = read_state_dict(path, fix=fix)
    if CLASSIFIER not in state or state[CLASSIFIER].ndim != 2:
        raise UserError(f"{path}: has no {CLASSIFIER}; {fix}")
    with torch.device("meta"):
        expected = build_ranking_network(len(state[CLASSIFIER])).state_dict()
    mismatch = find_mismatch(expected, state)
    if mismatch is not None:
        raise UserError(f"{path}: {mismatch}; {fix}")
    return state


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
    """Train with Adam and a cosine learning rate, then estimate BatchNorm's statistics again.

    Ours: the paper's ranking network is trained on ImageNet. Brief, so that classes still differ in accuracy. A step
    whose gradients are not finite is left out, as loss scaling does: where all images of a batch are equal, BatchNorm
    divides by a deviation of nearly 0, in each of 49 layers.

    Args:
        state: what `on_epoch` was given after an epoch; resumes from there.
        on_epoch: called after each epoch with everything that the next one depends on.

    Raises:
        UserError: no whole batch, or a loss that is not finite, or gradients that never are.
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
            scaler.unscale_(optimizer)
            if torch.nn.utils.get_total_norm(_gradients(network)).isfinite():
                scaler.step(optimizer)
                schedule.step()
            scaler.update()
        on_epoch({"epochs": epoch + 1} | {name: part.state_dict() for name, part in parts.items()})
    if not math.isfinite(loss.item()):
        raise UserError("params.yaml: rank_classes.fit: the loss is not finite; lower fit.learning_rate")
    if schedule.last_epoch == 0:
        raise UserError("params.yaml: rank_classes.fit: no step has finite gradients; raise fit.batch_size")
    loader.set_epoch(params.epochs - 1)  # even if all epochs were done before
    estimate_statistics(network, loader, device=device, precision=precision)


def _gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def cross_entropy(
    network: nn.Module, images: Tensor, labels: Tensor, *, device: torch.device, precision: str
) -> Tensor:
    """The mean loss of a batch, (N, 3, H, W) and (N,), computed on the device."""
    with autocast(device, precision):
        logits = network(images.to(device, non_blocking=True))
        return functional.cross_entropy(logits, labels.to(device, non_blocking=True))


@torch.no_grad()
def estimate_statistics(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device, precision: str
) -> None:
    """Replace BatchNorm's running statistics by the means over all batches; nothing else is in training mode.

    After a few dozen steps, the running ones still reflect the first steps: on the digits, a network that classified
    nine tenths of its batches correctly gave every image the same class.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    for images, _ in batches:
        with autocast(device, precision):
            network(images.to(device, non_blocking=True))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
