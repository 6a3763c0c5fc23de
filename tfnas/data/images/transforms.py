"""From a picture to what a network sees: (3, H, W) float32, normalized by ImageNet's mean and deviation.

Two steps: the view, cropped from one picture and scaled, in 8 bits; and the finish, colors and normalization of whole
batches, in a loading process or on the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tfnas.data.images.color import Colors, change_colors, draw_colors
from tfnas.data.images.decoding import to_tensor
from tfnas.data.params import AugmentationParams

if TYPE_CHECKING:
    from PIL import Image

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's red, green and blue
STD = (0.229, 0.224, 0.225)
CROP_FRACTION = 224 / 256  # of the shorter side, as the field validates on ImageNet
THUMBNAIL = 64  # pixels
CROP_RATIO = (3 / 4, 4 / 3)  # width to height
CROP_TRIES = 10
CHUNK_PIXELS = 1 << 16  # as floats, these stay in a core's cache


class View(NamedTuple):
    """A picture's part in the network's size."""

    pixels: Tensor  # (3, R, R) uint8
    colors: Colors | None


class Transform(ABC):
    """What an image goes through; called on one picture, it does both steps."""

    @abstractmethod
    def view(self, picture: Tensor, random: Random) -> View:
        """The first step, of a (3, H, W) uint8 picture."""

    def finish(self, pixels: Tensor, colors: Sequence[Colors | None]) -> Tensor:
        """The second step: (N, 3, R, R) uint8 to float32; no image's result depends on the others."""
        done = torch.empty_like(pixels, dtype=torch.float32, memory_format=torch.contiguous_format)
        size = max(1, CHUNK_PIXELS // (pixels.shape[2] * pixels.shape[3])) if pixels.device.type == "cpu" else 1 << 20
        mean, std = (torch.tensor(row, device=pixels.device)[:, None, None] for row in (MEAN, STD))
        for start in range(0, len(pixels), size):
            images = done[start : start + size]
            torch.div(pixels[start : start + size], 255.0, out=images)
            chosen = [row for row in colors[start : start + size] if row is not None]
            if chosen:
                change_colors(images, chosen)
            images.sub_(mean).div_(std)
        return done

    def __call__(self, picture: Image.Image | Tensor) -> Tensor:
        """(3, R, R) float32; randomness comes from torch's global generator."""
        tensor = picture if isinstance(picture, Tensor) else to_tensor(picture)
        view = self.view(tensor, Random(int(torch.randint(1 << 62, ()))))
        return self.finish(view.pixels[None], [view.colors])[0]


class TrainTransform(Transform):
    """A random crop to (resolution, resolution), perhaps a flip, perhaps a change of colors.

    The distributions are those of torchvision's RandomResizedCrop, RandomHorizontalFlip and ColorJitter.
    """

    def __init__(self, resolution: int, augmentation: AugmentationParams) -> None:
        self.resolution, self.augmentation = resolution, augmentation

    def view(self, picture: Tensor, random: Random) -> View:
        top, left, height, width = draw_crop(picture.shape[1], picture.shape[2], self.augmentation.crop_scale, random)
        pixels = picture[:, top : top + height, left : left + width]
        if (height, width) != (self.resolution, self.resolution):
            size = (self.resolution, self.resolution)
            pixels = interpolate(pixels[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        if self.augmentation.flip and random.random() < 0.5:
            pixels = pixels.flip(2)
        strengths = self.augmentation.color_jitter
        return View(pixels, draw_colors(strengths, random) if any(strengths) else None)


class EvalTransform(Transform):
    """An image to (resolution, resolution), without randomness.

    As the field does: the shorter side to 256/224 of the resolution, then the center. But a thumbnail (shorter side
    at most 64 pixels, as CIFAR's, which the paper resizes from 32 x 32 to 224 x 224) or an image that has the very
    size already is not cut at its borders, where small pictures have a part of their object.
    """

    def __init__(self, resolution: int, *, bicubic: bool) -> None:
        self.resolution, self.bicubic = resolution, bicubic

    def view(self, picture: Tensor, random: Random) -> View:
        height, width = picture.shape[1:]
        if height == width == self.resolution:
            return View(picture, None)
        from torchvision.transforms import InterpolationMode  # takes as long to import as torch
        from torchvision.transforms.v2 import functional

        interpolation = InterpolationMode.BICUBIC if self.bicubic else InterpolationMode.BILINEAR
        whole = min(height, width) <= THUMBNAIL
        shorter = self.resolution if whole else round(self.resolution / CROP_FRACTION)
        resized = functional.resize(picture, [shorter], interpolation=interpolation, antialias=True)
        return View(functional.center_crop(resized, [self.resolution, self.resolution]), None)


def train_transform(resolution: int, augmentation: AugmentationParams) -> TrainTransform:
    return TrainTransform(resolution, augmentation)


def eval_transform(resolution: int, *, bicubic: bool = False) -> EvalTransform:
    """Without randomness; `bicubic` as torchvision's EfficientNet-B0 was validated."""
    return EvalTransform(resolution, bicubic=bicubic)


def draw_crop(height: int, width: int, scale: tuple[float, float], random: Random) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop of `scale` of the area and of a ratio of sides from 3/4 to 4/3.

    As torchvision's RandomResizedCrop: the ratio's logarithm is uniform, and a crop that does not fit is drawn again,
    at last the largest one in the middle of an admitted ratio.
    """
    for _ in range(CROP_TRIES):
        area = height * width * random.uniform(*scale)
        ratio = math.exp(random.uniform(*map(math.log, CROP_RATIO)))
        cut_width, cut_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < cut_width <= width and 0 < cut_height <= height:
            top, left = random.randint(0, height - cut_height), random.randint(0, width - cut_width)
            return top, left, cut_height, cut_width
    low, high = CROP_RATIO
    ratio = min(max(width / height, low), high)
    cut_height, cut_width = min(height, round(width / ratio)), min(width, round(height * ratio))
    return (height - cut_height) // 2, (width - cut_width) // 2, cut_height, cut_width
