"""Random changes of color in batches: torchvision's ColorJitter, several times as fast.

Brightness, contrast, saturation and hue change one after another, in an order of each image's own. torchvision does
this image by image in 8 bits, rounding after each step; here the steps are a few sums and products over whole batches
in float32, without rounding. Hue is by far the most expensive of the four; its formula has no branches, which would
cost more than sums.

N batch, H W size; images are (N, 3, H, W) float32 RGB in [0, 1] and changed in place; factors are (N, 1, 1, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

GRAY = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision weighs them
IDENTITY = (1.0, 1.0, 1.0, 0.0)
Strengths = tuple[float, float, float, float]


class Colors(NamedTuple):
    """The random color changes of one image."""

    factors: tuple[float, ...]  # brightness, contrast, saturation (1: unchanged), hue (in turns; 0: unchanged)
    order: tuple[int, ...]  # the four, by their indices in `factors`


def draw_colors(strengths: Strengths, random: Random) -> Colors:
    """Factors from 1 - strength (0 or more) to 1 + strength, hue from - strength to + strength, and an order."""
    *scales, turn = strengths
    factors = [random.uniform(max(0.0, 1.0 - scale), 1.0 + scale) for scale in scales]
    factors.append(random.uniform(-turn, turn))
    return Colors(tuple(factors), tuple(random.sample(range(4), 4)))


def change_colors(images: Tensor, colors: Sequence[Colors]) -> Tensor:
    """Apply each image's color changes in place, and return the images."""
    factors = torch.tensor([row.factors for row in colors], device=images.device)[:, :, None, None, None]
    for position in range(4):
        for operation, change in enumerate(_OPERATIONS):
            rows = [
                number
                for number, row in enumerate(colors)
                if row.order[position] == operation and row.factors[operation] != IDENTITY[operation]
            ]
            if len(rows) == len(images):
                change(images, factors[:, operation])
            elif rows:
                images[rows] = change(images[rows], factors[rows, operation])
    return images


def change_brightness(images: Tensor, factors: Tensor) -> Tensor:
    return images.mul_(factors).clamp_(0.0, 1.0)


def change_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Toward or away from the mean of the gray picture."""
    gray = (images.mean((2, 3)) * images.new_tensor(GRAY)).sum(1)
    return images.mul_(factors).add_((1.0 - factors) * gray[:, None, None, None]).clamp_(0.0, 1.0)


def change_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Toward or away from the gray picture."""
    red, green, blue = images.unbind(1)
    gray = red.mul(GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])
    return images.mul_(factors).add_(gray[:, None].mul_(1.0 - factors)).clamp_(0.0, 1.0)


def change_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of HSV.

    With V the largest channel, C the largest less the smallest and H in turns, a channel is V - C where its own hue is
    opposite to H, V where it is near, and falls in straight lines between: V - C clamp(2 - 6 |u - round(u)|, 0, 1),
    u = H + 1/2 for red, H + 1/6 for green, H - 1/6 for blue.
    """
    hue, largest, chroma = _hue(*images.unbind(1))
    hue.add_(turns[:, 0])
    for channel, offset in zip(images.unbind(1), (1 / 2, 1 / 6, -1 / 6), strict=True):
        distance = hue + offset
        distance.sub_(distance.round()).abs_()
        depth = torch.rsub(distance, 2.0, alpha=6.0).clamp_(0.0, 1.0)
        torch.addcmul(largest, depth, chroma, value=-1.0, out=channel)
    return images


def _hue(red: Tensor, green: Tensor, blue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in turns (0 for gray), the largest channel, and the largest less the smallest.

    Green and blue change places where blue is larger, then red and the larger of them where that one is: what is
    between the two smaller ones is a sixth of a turn, from a corner that the exchanges tell.
    """
    below, above = torch.minimum(green, blue), torch.maximum(green, blue)
    first = (green - blue).lt_(0.0)  # 1.0 or 0.0: no boolean masks, which are slow
    second = (red - above).lt_(0.0)
    largest, middle = torch.maximum(red, above), torch.minimum(red, above)
    chroma = largest - torch.minimum(middle, below)
    corner = second.mul_(torch.add(first, -1 / 6).mul_(2.0)).sub_(first)
    return middle.sub_(below).div_(chroma.mul(6.0).clamp_min_(1e-12)).add_(corner).abs_(), largest, chroma


_OPERATIONS = (change_brightness, change_contrast, change_saturation, change_hue)
