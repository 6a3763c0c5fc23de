"""What an epoch gives follows from seed, epoch and image alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tfnas.data import ImageDataset, make_loader, train_transform
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import AugmentationParams

IMAGES = 10
AUGMENTATION = AugmentationParams.model_validate(
    {"crop_scale": [0.3, 1.0], "flip": True, "color_jitter": [0.4, 0.4, 0.4, 0.2]}
)


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    """Labels are the images' numbers."""
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    samples = [(f"{number}.png", number) for number in range(IMAGES)]
    return ImageDataset(tmp_path, samples, train_transform(8, AUGMENTATION))


def loader(dataset: ImageDataset, **changes):
    return make_loader(dataset, **({"batch_size": 4, "shuffle": True, "seed": 5, "drop_last": False} | changes))


def epoch(loader, number: int) -> tuple[torch.Tensor, list[int]]:
    loader.set_epoch(number)
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels).tolist()


def test_worker_processes_change_nothing(dataset: ImageDataset) -> None:
    here, there = loader(dataset), loader(dataset, workers=2)
    for number in (0, 1, 7):
        images, labels = epoch(here, number)
        other_images, other_labels = epoch(there, number)
        assert labels == other_labels
        torch.testing.assert_close(images, other_images, rtol=0, atol=0)


def test_parts_together_are_the_whole(dataset: ImageDataset) -> None:
    whole = loader(dataset, drop_last=True)
    parts = [loader(dataset, drop_last=True, part=(number, 2)) for number in range(2)]
    for number in (0, 3):
        for one in (whole, *parts):
            one.set_epoch(number)
        batches = zip(whole, *parts, strict=True)
        for (images, labels), *shares in batches:
            assert [len(share[1]) for share in shares] == [2, 2]
            assert torch.equal(labels, torch.cat([share[1] for share in shares]))
            assert torch.equal(images, torch.cat([share[0] for share in shares]))
    assert len(whole) == len(parts[0]) == len(parts[1])


def test_an_epoch_does_not_depend_on_earlier_ones(dataset: ImageDataset) -> None:
    images, labels = epoch(loader(dataset), 3)
    long = loader(dataset)
    for number in range(3):
        epoch(long, number)
    next(iter(long))  # an epoch that is left in the middle
    torch.rand(5)
    again, again_labels = epoch(long, 3)
    assert labels == again_labels
    torch.testing.assert_close(images, again, rtol=0, atol=0)


def test_an_epoch_left_in_the_middle_does_not_disturb_workers(dataset: ImageDataset) -> None:
    there = loader(dataset, workers=2)
    there.set_epoch(0)
    next(iter(there))
    images, labels = epoch(there, 1)
    expected, expected_labels = epoch(loader(dataset), 1)
    assert labels == expected_labels
    torch.testing.assert_close(images, expected, rtol=0, atol=0)


def test_epochs_and_seeds_differ_in_order_and_augmentation(dataset: ImageDataset) -> None:
    runs = [epoch(loader(dataset), 0), epoch(loader(dataset), 1), epoch(loader(dataset, seed=6), 0)]
    for i, (images, labels) in enumerate(runs):
        assert sorted(labels) == list(range(IMAGES))
        for other_images, other_labels in runs[:i]:
            assert labels != other_labels
            assert not torch.allclose(images[labels.index(0)], other_images[other_labels.index(0)])


def test_the_images_of_an_epoch_do_not_depend_on_the_batch_size(dataset: ImageDataset) -> None:
    images, labels = epoch(loader(dataset), 2)
    other_images, other_labels = epoch(loader(dataset, batch_size=3), 2)
    assert labels == other_labels
    torch.testing.assert_close(images, other_images, rtol=0, atol=0)


def test_without_shuffling_the_order_is_the_data_sets(dataset: ImageDataset) -> None:
    assert all(epoch(loader(dataset, shuffle=False), number)[1] == list(range(IMAGES)) for number in (0, 1))


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [4, 4]), (False, [4, 4, 2])])
def test_batches(dataset: ImageDataset, drop_last: bool, sizes: list[int]) -> None:
    batches = loader(dataset, drop_last=drop_last)
    assert len(batches) == len(sizes)
    assert [len(labels) for _, labels in batches] == sizes
    images, labels = next(iter(batches))
    assert images.shape == (4, 3, 8, 8) and images.dtype == torch.float32 and labels.dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_global_generator_is_left_alone(dataset: ImageDataset, workers: int) -> None:
    before = torch.random.get_rng_state()
    epoch(loader(dataset, workers=workers), 0)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_one_line_out_of_a_worker_too(dataset: ImageDataset, workers: int) -> None:
    (dataset.root / "6.png").write_bytes(b"text")
    with pytest.raises(UserError, match=r"\A[^\n]*6\.png: cannot be read as an image[^\n]*\Z"):
        epoch(loader(dataset, workers=workers), 0)
