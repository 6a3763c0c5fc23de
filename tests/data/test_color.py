"""Changes of colour against torchvision's."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tfnas.data.images.color import (
    IDENTITY,
    Colors,
    change_brightness,
    change_colors,
    change_contrast,
    change_hue,
    change_saturation,
    draw_colors,
)

STRENGTHS = (0.4, 0.4, 0.4, 0.2)
THEIRS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)


def pictures(count: int) -> torch.Tensor:
    """Noise with grey, black, white and pure colors in it."""
    images = torch.rand(count, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    images[:, :, :4] = images[:, :1, :4]
    images[:, :, 4:6], images[:, :, 6:8] = 0.0, 1.0
    images[:, 0, 8:10], images[:, 1, 10:12], images[:, 2, 12:14] = 1.0, 1.0, 1.0
    images[:, 1:, 8:10] = 0.0
    return images


@pytest.mark.parametrize(
    ("mine", "theirs", "factors"),
    [
        (change_brightness, THEIRS[0], (0.0, 0.6, 1.4)),
        (change_contrast, THEIRS[1], (0.0, 0.6, 1.4)),
        (change_saturation, THEIRS[2], (0.0, 0.6, 1.4)),
        (change_hue, THEIRS[3], (-0.5, -0.1, 0.2)),
    ],
)
def test_each_change_is_torchvisions(mine, theirs, factors) -> None:
    images = pictures(len(factors))
    expected = torch.stack([theirs(image, factor) for image, factor in zip(images, factors, strict=True)])
    changed = mine(images.clone(), torch.tensor(factors)[:, None, None, None])
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5)


def test_a_batch_gets_each_images_changes_in_its_order() -> None:
    images, random = pictures(30), Random(0)
    colors = [draw_colors(STRENGTHS, random) for _ in images]
    expected = []
    for image, row in zip(images, colors, strict=True):
        for operation in row.order:
            image = THEIRS[operation](image, row.factors[operation])
        expected.append(image)
    changed = change_colors(images.clone(), colors)
    torch.testing.assert_close(changed, torch.stack(expected), rtol=0, atol=1e-5)
    assert len({row.order for row in colors}) > 10
    alone = torch.cat([change_colors(images[i : i + 1].clone(), colors[i : i + 1]) for i in range(len(images))])
    torch.testing.assert_close(changed, alone, rtol=0, atol=0)


def test_nothing_to_change_changes_nothing() -> None:
    images = pictures(2)
    assert torch.equal(change_colors(images.clone(), [Colors(IDENTITY, (3, 2, 1, 0))] * 2), images)
    assert draw_colors((0.0, 0.0, 0.0, 0.0), Random(0)).factors == IDENTITY


def test_factors_are_drawn_as_torchvisions() -> None:
    random, theirs = (
        Random(0),
        v2.ColorJitter(
            *STRENGTHS,
        ),
    )
    ranges = [theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue]
    drawn = torch.tensor([draw_colors(STRENGTHS, random).factors for _ in range(4000)])
    for column, (low, high) in zip(drawn.T, ranges, strict=True):
        assert low <= column.min() and column.max() <= high
        assert abs(column.mean() - (low + high) / 2) < 0.03 * (high - low)
        assert abs(column.std() - (high - low) / 12**0.5) < 0.03 * (high - low)
    assert draw_colors((2.0, 0.0, 0.0, 0.0), Random(1)).factors[0] >= 0.0
