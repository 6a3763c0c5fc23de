"""What narrowing a searched path costs in accuracy, by the measure that ranks its channels (Appendix C).

apt-get install dataset-fashion-mnist; python benchmarks/search/channel_importance.py

A path is drawn, and trained as in a search that is nearly sure of it: each layer takes its operation in four of five
steps, and a random one otherwise (SGD 0.025, momentum 0.9). Then its operations keep five sixths or two thirds
of their initial channels. Top-1 on 500 held-out images of Fashion-MNIST at 32 x 32, BatchNorm by the statistics of
batches of 100, the same supernet before and after. Nothing is trained in between. One thread.
"""

from __future__ import annotations

import argparse
import copy
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tfnas.compute.devices import open_device
from tfnas.search.scaling.widths import CHANNEL_IMPORTANCE
from tfnas.search.state import SearchState, Setting
from tfnas.search.steps import Stepper
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import load_space
from tfnas.stages.params import load_params

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
BATCH, HELD_OUT, PART, CHOSEN = 32, 500, 100, 0.8
KEPT = (5 / 6, 2 / 3)  # of the initial channels

Images = tuple[Tensor, Tensor]


def read_images(split: str, count: int | None = None) -> Images:
    """Normalized images, 28 x 28 with a margin of 2 pixels, and labels."""
    contents = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        with gzip.open(FASHION_MNIST / f"{split}-{kind}-ubyte.gz") as file:
            contents.append(np.frombuffer(file.read(), np.uint8, offset=header))
    pixels = np.pad(contents[0].reshape(-1, 28, 28)[:count], ((0, 0), (2, 2), (2, 2)))
    images = torch.from_numpy(pixels.astype(np.float32) / 255)
    images = ((images - images.mean()) / images.std())[:, None].expand(-1, 3, -1, -1)
    return images, torch.from_numpy(contents[1][:count].astype(np.int64))


def measure(sharing: str, steps: int, seed: int, train: Images, held_out: Images) -> Iterator[tuple[str, float, float]]:
    """(measure, share of the channels that is kept, top-1 in percent) of one searched path; without a measure: all."""
    params = load_params(Path(__file__).parents[2] / "params.yaml").search
    weights = params.weights.model_copy(update={"learning_rate": 0.025, "momentum": 0.9, "weight_decay": 1e-5})
    setting = Setting(params.model_copy(update={"weights": weights, "weight_sharing": sharing}), seed)
    state = SearchState.initial(load_space("tf-nas"), 10, setting)
    random, candidates = torch.Generator().manual_seed(seed), len(state.supernet.space.candidates)
    path = torch.randint(candidates, state.supernet.alphas.shape[:1], generator=random)
    stepper = Stepper(state, setting, None)
    for _ in range(steps):
        batch = torch.randint(len(train[1]), (BATCH,), generator=random)
        other = torch.randint(candidates, path.shape, generator=random)
        taken = torch.where(torch.rand(path.shape, generator=random) < CHOSEN, path, other)
        stepper.weight_step((train[0][batch], train[1][batch]), [taken])
    yield "before", 1.0, top1(stepper, path, held_out)
    trained, widths = copy.deepcopy(state.supernet.state_dict()), state.supernet.widths()
    for kind in CHANNEL_IMPORTANCE:
        for share in KEPT:
            state.supernet.load_state_dict(trained)
            state.supernet.restore_widths(widths)
            narrow(state.supernet, path, share, kind)
            yield kind, share, top1(stepper, path, held_out)


def narrow(supernet: Supernet, path: Tensor, share: float, kind: str) -> None:
    """Keep this share of the channels of the path's operations, the most important ones."""
    operations, candidates = list(supernet.operations()), len(supernet.space.candidates)
    for layer, choice in enumerate(path.tolist()):
        operation = operations[layer * candidates + choice]
        operation.set_width(round(share * operation.width), kind)


def top1(stepper: Stepper, path: Tensor, held_out: Images) -> float:
    parts = zip(held_out[0].split(PART), held_out[1].split(PART), strict=True)
    return 100 * sum(stepper.count_correct(part, path).top1 for part in parts) / len(held_out[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sharing", nargs="+", default=["none", "entangled"])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    options = parser.parse_args()
    open_device("cpu", 1)
    train, held_out = read_images("train"), read_images("t10k", HELD_OUT)
    for sharing in options.sharing:
        for seed in options.seeds:
            found = measure(sharing, options.steps, seed, train, held_out)
            row = ", ".join(f"{kind} {share:.0%}: {accuracy:.1f}" for kind, share, accuracy in found)
            print(f"{sharing} seed {seed}  top-1 in percent  {row}", flush=True)


if __name__ == "__main__":
    main()
