"""Small generated data sets: a folder in ImageNet's layout, and sets in CIFAR's format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.images import own_image_params, write_image_folder
from tests.helpers.jobs import make_job, run_job
from tests.helpers.params import changed, shipped_params
from tfnas.data.sources.cifar_files import FORMATS, write_cifar, write_meta
from tfnas.stages.params import Params


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only get in each other's way on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "imagenet")


@pytest.fixture
def cifar(tmp_path: Path) -> Callable[[str], Path]:
    def write(dataset: str) -> Path:
        """The folder that holds a generated set's folder; 13 training and 4 test pictures."""
        random, form = np.random.default_rng(1), FORMATS[dataset]
        classes = [f"class {number}" for number in range(100 if dataset == "cifar100" else 10)]
        root = tmp_path / "cifar"
        folder = root / form.folder
        folder.mkdir(parents=True)
        parts = [
            (random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), random.integers(len(classes), size=count))
            for count in (13, 4)
        ]
        train, test = ((images, labels.tolist()) for images, labels in parts)
        write_cifar(folder, form, train=train, test=test)
        write_meta(folder, form, classes)
        return root

    return write


@pytest.fixture
def digits() -> Params:
    return changed(shipped_params(), resolution=16)


@pytest.fixture
def own_images(image_folder: Path) -> Params:
    return own_image_params(image_folder)


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)  # checkpoints/ are there

    def run(stage: str, params: Params, out: str, **inputs: Path) -> Path:
        """Check and run a job; returns its folder."""
        tracked: list[dict[str, float]] = []
        job = make_job(stage, tmp_path / out, params, inputs)
        monkeypatch.setattr(job.run, "log_metrics", tracked.append)
        run_job(job)
        job.end()
        assert all(isinstance(value, (int, float)) for metrics in tracked for value in metrics.values()) and tracked
        return job.out

    return run
