"""From a picture to what a network sees: (3, H, W) float32, normalised by ImageNet's mean and deviation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from tfnas.data.image_dataset import Transform
from tfnas.runtime.schema import AugmentationParams

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's red, green and blue
STD = (0.229, 0.224, 0.225)
CROP_FRACTION = 224 / 256  # of the shorter side, as the field validates on ImageNet
THUMBNAIL = 64  # pixels


def train_transform(resolution: int, augmentation: AugmentationParams) -> Transform:
    """A random crop to (resolution, resolution), perhaps a flip, perhaps a change of colours.

    Randomness comes from torch's global generator, which the loader sets for each image.
    """
    steps: list[nn.Module] = [
        v2.PILToTensor(),
        v2.RandomResizedCrop(resolution, scale=augmentation.crop_scale, antialias=True),
    ]
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if any(augmentation.color_jitter):
        steps.append(v2.ColorJitter(*augmentation.color_jitter))
    return v2.Compose([*steps, *_normalise()])


def eval_transform(resolution: int, *, bicubic: bool = False) -> Transform:
    """`ResizeAndCrop`, without randomness; `bicubic` as torchvision's EfficientNet-B0 was validated."""
    interpolation = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    return v2.Compose([v2.PILToTensor(), ResizeAndCrop(resolution, interpolation), *_normalise()])


class ResizeAndCrop(nn.Module):
    """An image to (resolution, resolution).

    As the field does: the shorter side to 256/224 of the resolution, then the centre. But a thumbnail (shorter side
    at most 64 pixels, as CIFAR's, which the paper resizes from 32 x 32 to 224 x 224) or an image that has the very
    size already is not cut at its borders, where small pictures have a part of their object.
    """

    def __init__(self, resolution: int, interpolation: InterpolationMode) -> None:
        super().__init__()
        self.resolution, self.interpolation = resolution, interpolation

    def forward(self, image: Tensor) -> Tensor:
        """(3, H, W) to (3, resolution, resolution)."""
        height, width = image.shape[-2:]
        if height == width == self.resolution:
            return image
        whole = min(height, width) <= THUMBNAIL
        shorter = self.resolution if whole else round(self.resolution / CROP_FRACTION)
        resized = functional.resize(image, [shorter], interpolation=self.interpolation, antialias=True)
        return functional.center_crop(resized, [self.resolution, self.resolution])


def _normalise() -> list[nn.Module]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
