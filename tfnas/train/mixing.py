"""Mixup and CutMix of a batch, by torchvision: not in the paper, off by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from tfnas.runtime.schema import ExtrasParams

if TYPE_CHECKING:
    from torchvision.transforms import v2

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def make_mix(extras: ExtrasParams, num_classes: int) -> Mix | None:
    """Turns (N, 3, H, W) images and (N,) labels into mixed images and (N, K) shares of the classes.

    With both of `extras.mixup` and `extras.cutmix`, each batch goes through one of the two, by equal chance. All
    randomness comes from torch's global generator. None where both are 0.
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
