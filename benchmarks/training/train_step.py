"""Training throughput against timm's own training loop: the same network, images, batch and augmentation.

    curl -LO https://raw.githubusercontent.com/huggingface/pytorch-image-models/v1.0.31/train.py
    python benchmarks/training/train_step.py --timm-train train.py

Epochs of the two take turns in one process, each with its own loading (in the process itself) and augmentation (a crop
resized to the resolution, a flip); the first round does not count. It prints images a second of both, by the clock and
by CPU time, and the ratio, as the median over rounds. On a machine with other work, take --threads 1 and the CPU time.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from tfnas.data import ImageDataset, make_loader, train_transform
from tfnas.data.params import AugmentationParams
from tfnas.space import build_network, zoo
from tfnas.train.loop import EpochLoop, Setting
from tfnas.train.params import RecipeParams
from tfnas.train.step import TrainingStepper

CPU = torch.device("cpu")
CROP_SCALE = (0.08, 1.0)
CLOCKS = {"second": time.perf_counter, "CPU-second": time.process_time}  # the second also beside other work
Epoch = Callable[[], None]


def main() -> None:
    options = _parse_options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = write_images(folder, options.steps * options.batch_size, options.picture)
        runs = {"tfnas": our_epoch(folder, samples, options), "timm": timm_epoch(folder, samples, options)}
        seconds = take_turns(runs, options.rounds)
    for clock in CLOCKS:
        rates = {run: [len(samples) / value[clock] for value in values] for run, values in seconds.items()}
        ratios = [ours / theirs for ours, theirs in zip(rates["tfnas"], rates["timm"], strict=True)]
        found = ", ".join(f"{run} {statistics.median(values):.2f}" for run, values in rates.items())
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"images per {clock}: {found}; tfnas / timm {statistics.median(ratios):.3f} ({spread})")


def take_turns(runs: dict[str, Epoch], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of each epoch by both clocks, without the first round's; who begins changes from round to round."""
    seconds: dict[str, list[dict[str, float]]] = {run: [] for run in runs}
    for number in range(rounds + 1):
        for run in list(runs) if number % 2 else list(runs)[::-1]:
            start = {clock: read() for clock, read in CLOCKS.items()}
            runs[run]()
            spent = {clock: read() - start[clock] for clock, read in CLOCKS.items()}
            print(f"round {number}, {run}: {spent}", file=sys.stderr, flush=True)
            if number:
                seconds[run].append(spent)
    return seconds


def write_images(folder: Path, count: int, size: int) -> list[tuple[str, int]]:
    """JPEGs of smooth noise, (size, size), and their labels."""
    random, samples = np.random.default_rng(0), []
    for number in range(count):
        noise = Image.fromarray(random.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8))
        path = folder / f"{number}.jpg"
        noise.resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)
        samples.append((path.name, number % 1000))
    return samples


def our_epoch(folder: Path, samples: list[tuple[str, int]], options: argparse.Namespace) -> Epoch:
    recipe = _recipe(options)
    transform = train_transform(options.resolution, recipe.augmentation)
    loader = make_loader(
        ImageDataset(folder, samples, transform), options.batch_size, shuffle=True, seed=0, drop_last=True
    )
    network = build_network(zoo.load(options.network), dropout=0.2, drop_connect=recipe.drop_connect)
    stepper = TrainingStepper(network, recipe, device=CPU, precision="float32")
    loop = EpochLoop(stepper, (loader, loader), Setting("benchmark", stepper.device, stepper.precision, seed=0), None)

    def epoch() -> None:
        loop.train_epoch(iter(()))
        loop.progress.step, loop.progress.seconds = 0, 0.0

    return epoch


def timm_epoch(folder: Path, samples: list[tuple[str, int]], options: argparse.Namespace) -> Epoch:
    from timm.data import create_loader
    from timm.data.dataset import ImageDataset as TimmDataset
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask

    reference = _load(options.timm_train)
    logging.getLogger("train").setLevel(logging.WARNING)
    network = build_network(zoo.load(options.network), dropout=0.2, drop_connect=0.2)
    network = network.to(memory_format=torch.channels_last)
    task = ClassificationTask(network, torch.nn.CrossEntropyLoss(label_smoothing=0.1), device=CPU, verbose=False)
    loader = create_loader(
        TimmDataset(str(folder), reader=_Reader(folder, samples)),
        input_size=(3, options.resolution, options.resolution),
        batch_size=options.batch_size,
        is_training=True,
        use_prefetcher=False,
        scale=CROP_SCALE,
        hflip=0.5,
        color_jitter=None,
        interpolation="bilinear",
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
        device=CPU,
    )
    optimizer = create_optimizer_v2(
        network, opt="momentum", lr=0.1, momentum=0.9, weight_decay=1e-5, filter_bias_and_bn=False
    )
    settings = _settings()

    def epoch() -> None:
        reference.train_one_epoch(0, network, loader, optimizer, settings, task=task, device=CPU)

    return epoch


class _Reader:
    """timm's kind of a list of images."""

    def __init__(self, folder: Path, samples: list[tuple[str, int]]) -> None:
        self.folder, self.samples = folder, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        name, label = self.samples[index]
        return (self.folder / name).open("rb"), label

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return self.samples[index][0]


def _settings() -> SimpleNamespace:
    """What timm's loop looks up in its arguments."""
    return SimpleNamespace(
        mixup_off_epoch=0,
        prefetcher=False,
        distributed=False,
        grad_accum_steps=1,
        channels_last=True,
        clip_grad=None,
        clip_mode="norm",
        log_interval=1000,
        rank=0,
        world_size=1,
        recovery_interval=0,
        save_images=False,
        synchronize_step=False,
        sched_on_updates=False,
    )


def _recipe(options: argparse.Namespace) -> RecipeParams:
    augmentation = AugmentationParams(crop_scale=CROP_SCALE, flip=True, color_jitter=(0, 0, 0, 0))
    extras = {"ema_decay": 0, "mixup": 0, "cutmix": 0, "rand_augment": 0, "decay_norm_and_bias": True}
    return RecipeParams.model_validate(
        {
            "epochs": 1,
            "batch_size": options.batch_size,
            "learning_rate": 0.1,
            "warmup_epochs": 0,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 1e-5,
            "label_smoothing": 0.1,
            "drop_connect": 0.2,
            "gradient_clip": 0.0,
            "keep": "last",
            "sampler": "as_is",
            "augmentation": augmentation,
            "extras": extras,
            "accumulate": 1,
            "channels_last": True,
            "compile": False,
            "sync_batchnorm": False,
            "checkpoint_every_steps": 0,
        }
    )


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("timm_train", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    arguments, sys.argv = sys.argv, [str(path)]
    try:
        spec.loader.exec_module(module)
    finally:
        sys.argv = arguments
    return module


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm-train", type=Path, required=True, metavar="FILE", help="train.py of timm's repository")
    parser.add_argument("--network", default="TF-NAS-D")
    parser.add_argument("--resolution", type=int, default=112)
    parser.add_argument("--picture", type=int, default=256, help="height and width of the images on disk")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
