"""What an epoch gives follows from seed, epoch and image alone; pictures from disk, and broken ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tfnas.data import ImageDataset, make_loader, train_transform
from tfnas.data.images import loader as image_dataset
from tfnas.data.images import loader as loader_module
from tfnas.data.images.decoding import read_image
from tfnas.data.params import AugmentationParams
from tfnas.jobs.errors import UserError

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


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 2, 3])
def test_an_epoch_can_be_resumed_in_the_middle(dataset: ImageDataset, start: int, workers: int, monkeypatch) -> None:
    whole = loader(dataset, workers=workers)
    whole.set_epoch(4)
    expected = list(whole)[start:]
    resumed = loader(dataset, workers=workers)
    read = []
    if workers == 0:
        picture = ImageDataset.picture
        monkeypatch.setattr(ImageDataset, "picture", lambda self, index: read.append(index) or picture(self, index))
    resumed.set_epoch(4, start=start)
    batches = list(resumed)
    assert len(batches) == len(expected) and len(resumed) == 3
    for (images, labels), (other_images, other_labels) in zip(batches, expected, strict=True):
        assert torch.equal(labels, other_labels) and torch.equal(images, other_images)
    if workers == 0:
        assert len(read) == max(0, IMAGES - 4 * start)  # nothing was decoded in vain
    resumed.set_epoch(5)
    assert len(list(resumed)) == 3  # a start is for one epoch


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world_size", [2, 3])
def test_shares_of_a_batch_make_up_that_of_one_process(dataset: ImageDataset, world_size: int, drop_last: bool) -> None:
    one = loader(dataset, batch_size=2 * world_size, drop_last=drop_last)
    ranks = [
        loader(dataset, batch_size=2, drop_last=drop_last, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for batches in (one, *ranks):
        batches.set_epoch(3, start=1)
    shares = [list(batches) for batches in ranks]
    assert [len(share) for share in shares] == [len(batches) - 1 for batches in ranks]
    if drop_last:
        assert len({len(batches) for batches in ranks}) == 1
    for number, (images, labels) in enumerate(one):
        parts = [share[number] for share in shares if number < len(share)]
        assert sorted(label for _, part in parts for label in part.tolist()) == sorted(labels.tolist())
        for part_images, part_labels in parts:
            for image, label in zip(part_images, part_labels, strict=True):
                assert torch.equal(image, images[labels.tolist().index(label)])


def test_an_image_that_comes_twice_is_augmented_in_two_ways(dataset: ImageDataset) -> None:
    """Nine images of one class and one of another: the latter is half of a balanced epoch; as it is, all come once."""
    dataset.labels = [0] * (IMAGES - 1) + [1]
    images, labels = epoch(loader(dataset, balanced=True), 0)
    assert sorted(labels) == [0] * 5 + [1] * 5
    alone = images[torch.tensor(labels) == 1]
    assert all(not torch.equal(one, other) for i, one in enumerate(alone) for other in alone[:i])
    as_is, as_is_labels = epoch(loader(dataset), 0)
    assert torch.equal(as_is[as_is_labels.index(1)], alone[0])
    assert torch.equal(epoch(loader(dataset, balanced=True, workers=2), 0)[0], images)


@pytest.mark.parametrize("bytes_kept", [0, 1 << 20])
def test_kept_pictures_change_nothing(dataset: ImageDataset, bytes_kept: int, monkeypatch) -> None:
    expected = [epoch(loader(dataset), number)[0] for number in (0, 1)]
    monkeypatch.setattr(image_dataset, "CACHE_BYTES", bytes_kept)
    again = ImageDataset(dataset.root, dataset.samples, dataset.transform)
    batches = loader(again)
    for number in (0, 1):
        assert torch.equal(epoch(batches, number)[0], expected[number])
        if number == 0 and bytes_kept:
            for path, _ in dataset.samples:
                (dataset.root / path).unlink()  # the second epoch reads none


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finishes_batches_as_the_cpu_does(dataset: ImageDataset) -> None:
    device = torch.device("cuda")
    images, labels = epoch(loader(dataset, device=device, pin_memory=True, workers=2), 1)
    expected, expected_labels = epoch(loader(dataset), 1)
    assert images.device.type == "cuda" and labels == expected_labels
    torch.testing.assert_close(images.cpu(), expected, rtol=0, atol=1e-4)


def test_no_more_workers_than_shared_memory_has_room_for(dataset: ImageDataset, monkeypatch, capsys) -> None:
    """Each prefetches four batches of four images of 3 x 8 x 8 bytes; a full /dev/shm kills with a bus error."""
    each = 4 * 4 * 3 * 8 * 8
    expected = epoch(loader(dataset), 0)
    for free, started in ((None, 2), (2 * each, 2), (2 * each - 1, 1), (each - 1, 0), (0, 0)):
        monkeypatch.setattr(loader_module, "_free_shared_memory", lambda free=free: free)
        made = loader(dataset, workers=2)
        assert made._loader.num_workers == started
        said = capsys.readouterr().err
        assert ("device.workers is 2" in said and "--shm-size" in said) == (started < 2)
        images, labels = epoch(made, 0)
        assert torch.equal(images, expected[0]) and labels == expected[1]


def test_shared_memory_that_others_fill_later_is_one_line(dataset: ImageDataset, monkeypatch) -> None:
    """Without that, torch prints a traceback in the worker, and the job waits without end."""
    made = loader(dataset, workers=2)
    monkeypatch.setattr(loader_module, "_free_shared_memory", lambda: 4 * 3 * 8 * 8 - 1)
    with pytest.raises(UserError, match=r"\A/dev/shm has 0.0 MB free, and a batch needs .*shm-size[^\n]*\Z"):
        epoch(made, 0)


class Dying(torch.utils.data.Dataset):
    """A process that loads from it is killed as by a full /dev/shm."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        os.kill(os.getpid(), signal.SIGBUS)
        raise AssertionError


def test_a_killed_worker_is_one_line_with_advice() -> None:
    with pytest.raises(
        UserError,
        match=r"\Aa data loading process died \(.*\): if /dev/shm was full .*, enlarge /dev/shm .*: 0[^\n]*\Z",
    ):
        list(make_loader(Dying(), 2, shuffle=False, seed=0, drop_last=False, workers=1))


PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def rows(picture: torch.Tensor) -> np.ndarray:
    """(H, W, 3), as NumPy and Pillow have it."""
    return picture.permute(1, 2, 0).numpy()


def test_items_are_transformed_pictures_and_labels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    dataset = ImageDataset(tmp_path, [("a.png", 7)], rows)
    image, label = dataset[0]
    assert len(dataset) == 1 and label == 7
    np.testing.assert_array_equal(image, PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 40, 50) and image.dtype == torch.uint8


def test_broken_pictures_are_named_in_one_line(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "whole.jpg")
    Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    jpeg, png = (tmp_path / "whole.jpg").read_bytes(), (tmp_path / "whole.png").read_bytes()
    broken = {
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "flipped.png": png[:60] + b"\0" * 40 + png[100:],
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: cannot be read as an image \(.+\); replace it") as caught:
            ImageDataset(tmp_path, [(name, 0)], rows)[0]
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"none\.jpg: cannot be read as an image \(No such file"):
        read_image(tmp_path / "none.jpg")
