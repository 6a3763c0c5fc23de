"""Transforms against torchvision's classic ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as classic
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import InterpolationMode

from tfnas.data import eval_transform, train_transform
from tfnas.data.images.transforms import MEAN, STD
from tfnas.data.params import AugmentationParams

ONE_STEP = 1 / 255 / min(STD)  # of an 8-bit value, after normalisation


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth, as photographs are, with an edge."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def augmentation(**changes) -> AugmentationParams:
    values = {"crop_scale": [1.0, 1.0], "flip": False, "color_jitter": [0, 0, 0, 0]}
    return AugmentationParams.model_validate(values | changes)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (300, 300), (100, 70), (256, 256)])
@pytest.mark.parametrize("bicubic", [False, True])
def test_validation_is_the_fields_within_one_step_of_8_bits(height: int, width: int, bicubic: bool) -> None:
    interpolation = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    theirs = ImageClassification(crop_size=224, resize_size=256, mean=MEAN, std=STD, interpolation=interpolation)
    image = picture(height, width)
    mine = eval_transform(224, bicubic=bicubic)(image)
    assert mine.shape == (3, 224, 224) and mine.dtype == torch.float32 and type(mine) is torch.Tensor
    assert (mine - theirs(image)).abs().max() <= 1.01 * ONE_STEP


@pytest.mark.parametrize("size", [8, 32, 64])
def test_thumbnails_are_enlarged_whole(size: int) -> None:
    image = Image.fromarray(np.zeros((size, size, 3), dtype=np.uint8))
    for place in ((0, 0), (size - 1, size - 1)):
        image.putpixel(place, (255, 255, 255))
    seen = eval_transform(224)(image)[0]
    assert seen.shape == (224, 224)
    assert seen[0, 0] > seen[112, 112] < seen[-1, -1]


@pytest.mark.parametrize("size", [32, 96, 224])
def test_an_image_of_the_very_size_is_only_normalised(size: int) -> None:
    image = picture(size, size)
    expected = classic.Normalize(MEAN, STD)(classic.ToTensor()(image))
    torch.testing.assert_close(eval_transform(size)(image), expected)


def test_no_augmentation_leaves_the_image() -> None:
    image = picture(48, 48)
    torch.testing.assert_close(train_transform(48, augmentation())(image), eval_transform(48)(image))


def test_a_flip_comes_half_of_the_time_and_only_when_asked() -> None:
    image = picture(24, 24)
    plain = eval_transform(24)(image)
    torch.manual_seed(0)
    flips = train_transform(24, augmentation(flip=True))
    seen = [flips(image) for _ in range(200)]
    flipped = sum(torch.allclose(view, plain.flip(2)) for view in seen)
    assert flipped + sum(torch.allclose(view, plain) for view in seen) == 200
    assert 70 < flipped < 130


def test_crops_cover_the_share_of_the_area_that_is_asked_for() -> None:
    """Of a picture whose value is its column, a view's range tells the crop's width."""
    columns = np.broadcast_to(np.arange(240, dtype=np.uint8)[None, :, None], (240, 240, 3))
    crop = train_transform(60, augmentation(crop_scale=[0.25, 0.5]))
    torch.manual_seed(0)
    views = [crop(Image.fromarray(columns.copy()))[0] * STD[0] * 255 for _ in range(100)]
    widths = [float(view.max() - view.min()) / 240 for view in views]
    assert 0.5 * np.sqrt(3 / 4) - 0.03 < min(widths) and max(widths) < np.sqrt(0.5 * 4 / 3) + 0.01
    assert np.ptp(widths) > 0.2


def test_colours_change_when_asked() -> None:
    image = picture(24, 24)
    torch.manual_seed(0)
    changed = train_transform(24, augmentation(color_jitter=[0.4, 0.4, 0.4, 0.2]))(image)
    assert changed.shape == (3, 24, 24) and not torch.allclose(changed, eval_transform(24)(image), atol=0.05)
