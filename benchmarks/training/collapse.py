"""Trainings that collapse: the digits' retraining at twice its learning rate, with clipped gradients and without.

python benchmarks/training/collapse.py --seeds 30 --out collapse.jsonl     # resumes after the last line; one thread
python benchmarks/training/collapse.py --seeds 30 --out collapse.jsonl --show

Each run is the recipe of params.yaml (digits, 32 x 32, its epochs) at --factor times its learning rate, through the
library's own loop, with one of the values of --clips as `gradient_clip`. A seed decides the initial weights, the order
of the images, their augmentation and the noise of dropout; so runs of one seed differ in the clipping alone. The
network is a member of Table 1's space of about the size of the digits' target A: two layers per stage, k3_e3 and
k3_e6_se, at their initial widths (12 blocks, 5.8 M multiply-adds). A finished run is a line of JSON in --out.

A run has collapsed if its loss was not finite, or if its last top-1 is below half of the median of all runs shown.
`best - last` is by how much `keep: best` would have raised the reported top-1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed, seed_everything
from tfnas.data import eval_transform, make_loader, train_transform
from tfnas.data.images.loader import PictureDataset
from tfnas.data.sources.digits import CLASSES, load_digits
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, build_network, load_space
from tfnas.space.membership import assemble
from tfnas.stages.params import Params, load_params
from tfnas.train.loop import Loaders, Setting, train
from tfnas.train.metrics import TrainingEpoch
from tfnas.train.params import RecipeParams

LAYERS = ("k3_e3", "k3_e6_se")  # of every stage; the first where there is one layer
DROPOUT = 0.2  # of both targets

Line = dict[str, Any]


class Digits(PictureDataset):
    """One split of scikit-learn's digits, in memory."""

    def __init__(self, split: str, resolution: int, transform: Any) -> None:
        chosen = [digit for digit in load_digits() if digit.split == split]
        self.pictures = [np.array(digit.picture(resolution)) for digit in chosen]  # (R, R, 3) uint8 each
        self.labels, self.transform = [digit.label for digit in chosen], transform

    def picture(self, index: int) -> Tensor:
        return torch.from_numpy(self.pictures[index]).permute(2, 0, 1)


def fixed_network() -> Architecture:
    space = load_space("tf-nas")
    candidates = {candidate.name: candidate for candidate in space.candidates}
    choices = {}
    for stage in space.searchable_stages:
        chosen = [candidates[name] for name in LAYERS[: stage.max_depth]]
        inputs = [stage.in_channels, *[stage.out_channels] * (len(chosen) - 1)]
        choices[stage.stage] = [(c, c.initial_width(channels)) for c, channels in zip(chosen, inputs, strict=True)]
    return assemble(space, "collapse", choices)


def make_loaders(params: Params, recipe: RecipeParams, seed: int) -> Loaders:
    size, resolution = recipe.batch_size, params.resolution
    training = Digits("train", resolution, train_transform(resolution, recipe.augmentation))
    val = Digits("val", resolution, eval_transform(resolution))
    return (
        make_loader(training, size, shuffle=True, seed=seed, drop_last=True),
        make_loader(val, size, shuffle=False, seed=seed, drop_last=False),
    )


def run_one(params: Params, recipe: RecipeParams, seed: int, device: torch.device) -> Line:
    """Train once; a loss that is not finite ends the run, and is its result."""
    records: list[TrainingEpoch] = []
    name, stopped, start = "collapse", None, time.perf_counter()
    seed_everything(derive_seed(seed, name))
    network = build_network(fixed_network(), len(CLASSES), DROPOUT, recipe.drop_connect)
    loaders = make_loaders(params, recipe, derive_seed(seed, name, "loader"))
    try:
        train(network, loaders, recipe, Setting(name, device, "float32", seed), on_epoch=records.append)
    except UserError as error:
        stopped = str(error)
    return {
        "stopped": stopped,
        "top1": [record.val_top1 for record in records],
        "train_loss": [record.train_loss for record in records],
        "seconds": round(time.perf_counter() - start, 1),
    }


def run_all(options: argparse.Namespace) -> None:
    params, device = load_params(Path(__file__).parents[2] / "params.yaml"), open_device("cpu", 1)
    plain, done = params.retrain, read_lines(options.out)
    for seed in range(options.seeds):
        for clip in options.clips:
            changed = {
                "epochs": options.epochs or plain.epochs,
                "learning_rate": options.factor * plain.learning_rate,
                "gradient_clip": clip,
                "keep": "last",
            }
            recipe = plain.model_copy(update=changed)
            key = {**changed, "batch_size": recipe.batch_size, "seed": seed}
            if any(key == {name: line[name] for name in key} for line in done):
                continue
            line = key | run_one(params, recipe, seed, device)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            ended = line["stopped"] or f"top-1 {line['top1'][-1]:.2f} %"
            print(f"seed {seed}, gradient_clip {clip:g}: {ended}, {line['seconds']} s", flush=True)


def read_lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def has_collapsed(line: Line, median: float) -> bool:
    return line["stopped"] is not None or line["top1"][-1] < median / 2


def show(lines: Sequence[Line]) -> None:
    """One row per learning rate, epochs and clipping."""
    last = [line["top1"][-1] if line["top1"] else 0.0 for line in lines]
    median = statistics.median(last) if last else 0.0
    print("rate   epochs  clip  runs  collapsed  top-1: median  lowest  best - last: mean  largest")
    for rate, epochs, clip in sorted({(x["learning_rate"], x["epochs"], x["gradient_clip"]) for x in lines}):
        some = [x for x in lines if (x["learning_rate"], x["epochs"], x["gradient_clip"]) == (rate, epochs, clip)]
        ends = [line["top1"][-1] for line in some if line["stopped"] is None]
        gains = [max(line["top1"]) - line["top1"][-1] for line in some if line["stopped"] is None]
        collapsed = sum(has_collapsed(line, median) for line in some)
        numbers = (
            f"{statistics.median(ends):13.2f}  {min(ends):6.2f}  {statistics.mean(gains):17.2f}  {max(gains):7.2f}"
            if ends
            else "none finished"
        )
        print(f"{rate:<5g}  {epochs:6}  {clip:4g}  {len(some):4}  {collapsed:9}  {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--show", action="store_true", help="print the table of the finished runs, and run none")
    parser.add_argument("--seeds", type=int, default=30, metavar="N", help="seeds 0 to N - 1")
    parser.add_argument("--clips", nargs="+", type=float, default=[5.0, 0.0])
    parser.add_argument("--factor", type=float, default=2.0, help="of the learning rate in params.yaml")
    parser.add_argument("--epochs", type=int, default=None, help="default: those of params.yaml")
    options = parser.parse_args()
    if not options.show:
        run_all(options)
    show(read_lines(options.out))


if __name__ == "__main__":
    main()
