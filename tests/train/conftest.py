"""A tiny network, random images, and a loader that depends on the epoch alone."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers.params import changed, shipped_params
from tfnas.space import Architecture, Block, Head, Stem
from tfnas.stages.params import Params
from tfnas.train.params import RecipeParams

CLASSES = ("black", "grey", "white")  # of `pictures`
OFF = {"ema_decay": 0, "mixup": 0, "cutmix": 0, "rand_augment": 0, "decay_norm_and_bias": True}


class RandomLoader:
    """Batches of fixed random images; shuffled and disturbed by the epoch as augmentation would."""

    def __init__(self, images: int, batch_size: int, *, seed: int, shuffle: bool, num_classes: int = 6) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(images, 3, 16, 16, generator=generator)
        self.labels = torch.randint(num_classes, (images,), generator=generator)
        self.batch_size, self.shuffle, self.epoch, self.start = batch_size, shuffle, 0, 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.images))
        noise = torch.zeros(())
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.epoch)
            order = torch.randperm(len(self.images), generator=generator)
            noise = torch.randn(3, 16, 16, generator=generator)
        for chosen in order.split(self.batch_size)[self.start :]:
            yield self.images[chosen] + noise, self.labels[chosen]


@pytest.fixture
def architecture() -> Architecture:
    return Architecture(
        name="tiny",
        space="test",
        stem=Stem(kernel=3, in_channels=3, out_channels=8, stride=2, act="relu"),
        blocks=(
            Block(3, 8, 16, 4, 8, "relu", 1),
            Block(5, 8, 24, 0, 12, "swish", 2),
            Block(3, 12, 12, 6, 12, "swish", 1),
        ),
        head=Head(out_channels=16, act="swish"),
    )


@pytest.fixture
def make_recipe() -> Callable[..., RecipeParams]:
    def make(**changes: Any) -> RecipeParams:
        values: dict[str, Any] = {
            "epochs": 4,
            "batch_size": 8,
            "learning_rate": 0.05,
            "warmup_epochs": 1,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 1e-3,
            "label_smoothing": 0.1,
            "drop_connect": 0.2,
            "gradient_clip": 0.0,
            "keep": "last",
            "sampler": "as_is",
            "augmentation": {"crop_scale": [0.7, 1.0], "flip": False, "color_jitter": [0, 0, 0, 0]},
            "extras": {**OFF, **changes.pop("extras", {})},
            "accumulate": 1,
            "channels_last": True,
            "compile": False,
            "sync_batchnorm": False,
            "checkpoint_every_steps": 0,
        }
        return RecipeParams.model_validate({**values, **changes})

    return make


@pytest.fixture
def loaders() -> tuple[RandomLoader, RandomLoader]:
    """Three batches of training images, and validation images with a smaller last batch."""
    return RandomLoader(24, 8, seed=1, shuffle=True), RandomLoader(10, 8, seed=2, shuffle=False)


@pytest.fixture(scope="session")
def numpy_metrics() -> Callable[[np.ndarray, np.ndarray], tuple[float, float, float]]:
    def compute(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
        """Mean cross-entropy, top-1 and top-5 in percent."""
        chosen = logits[np.arange(len(labels)), labels]
        loss = float(np.mean(np.log(np.exp(logits).sum(1)) - chosen))
        better = (logits > chosen[:, None]).sum(1)
        return loss, 100.0 * float(np.mean(better == 0)), 100.0 * float(np.mean(better < 5))

    return compute


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """manifest.csv and images/ of noisy pictures whose class is their brightness."""
    generator = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 8), ("val", 3)):
        for level, name in enumerate(CLASSES):
            for number in range(count):
                path = tmp_path / "images" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 60, (20, 20, 3), dtype=np.uint8) + np.uint8(90 * level)
                Image.fromarray(pixels).save(path)
                rows.append((split, name, path.relative_to(tmp_path / "images").as_posix(), path.stat().st_size))
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("split", "class", "path", "bytes"), *rows])
    return tmp_path / "manifest.csv", tmp_path / "images"


@pytest.fixture
def params() -> Params:
    """A short retraining on tiny pictures."""
    return changed(shipped_params(), resolution=16, retrain={"epochs": 3, "warmup_epochs": 1, "batch_size": 8})
