"""A short training as torchrun starts it; prints nothing, writes each step's loss and the final weights.

torchrun --nproc-per-node 2 gloo_training.py OUT OPTIONS...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from tfnas.compute import distributed
from tfnas.data import make_loader
from tfnas.jobs.artifacts import write_json
from tfnas.jobs.checkpoints import CheckpointFolder
from tfnas.space import Architecture, build_network
from tfnas.train.distillation import Distillation
from tfnas.train.loop import Setting, train
from tfnas.train.params import RecipeParams
from tfnas.train.session import SharedCheckpoints
from tfnas.train.step import TrainingStepper
from tfnas.train.weights import save_weights

CPU = torch.device("cpu")


def main() -> None:
    out, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    recipe = RecipeParams.model_validate(options["recipe"])
    losses: list[float] = []
    _note_losses(losses)
    with (
        distributed.process_group(CPU),
        SharedCheckpoints(lambda: CheckpointFolder(out / "checkpoints", digest="0" * 64)) as checkpoints,
    ):
        _die_at_save(checkpoints, options.get("dies_at_save", 0))
        torch.manual_seed(distributed.rank())  # the first process's weights must reach the others
        network = build_network(Architecture.load(options["architecture"]), 6)
        result = train(
            network,
            tuple(_loaders(recipe)),
            recipe,
            Setting(name="t", device=CPU, precision="float32", seed=0),
            distillation=_distillation(options["architecture"]) if options.get("teacher") else None,
            checkpoints=checkpoints,
        )
        if distributed.rank() == 0:
            save_weights(network, out / "weights.pt")
            records = [record.metrics() | {"seconds": 0} for record in result.history]
            write_json(out / "result.json", {"losses": losses, "history": records, "kept_epoch": result.kept_epoch})


def _distillation(architecture: str) -> Distillation:
    """From a fixed network, the same in all processes."""
    torch.manual_seed(7)
    return Distillation(build_network(Architecture.load(architecture), 6).eval(), temperature=2.0, weight=0.5)


def _loaders(recipe: RecipeParams):
    generator = torch.Generator().manual_seed(0)
    world_size = distributed.world_size()
    for images, training in ((264, True), (37, False)):
        labels = torch.randint(6, (images,), generator=generator)
        pictures = torch.randn(images, 3, 16, 16, generator=generator) + labels[:, None, None, None] / 6
        dataset = TensorDataset(pictures, labels)
        dataset.labels = labels.tolist()
        yield make_loader(
            dataset,
            recipe.batch_size // (world_size * recipe.accumulate),
            shuffle=training,
            seed=0,
            drop_last=training,
            balanced=training and recipe.sampler == "balanced",
            rank=distributed.rank(),
            world_size=world_size,
        )


def _note_losses(losses: list[float]) -> None:
    """Of the whole batch: the mean over parts and processes."""
    step = TrainingStepper.step

    def noting(self, parts, rate):
        computed = step(self, parts, rate)
        losses.append(distributed.mean(torch.stack([part.loss for part in computed]).mean()).item())
        return computed

    TrainingStepper.step = noting  # type: ignore[method-assign]


def _die_at_save(checkpoints: SharedCheckpoints, count: int) -> None:
    save, saved = checkpoints.save, []

    def save_or_die(state) -> None:
        save(state)
        saved.append(None)
        if len(saved) == count:
            raise SystemExit(1)

    checkpoints.save = save_or_die  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
