"""Whether a supernet learns: accuracy of uniformly random paths on held-out images after so many weight steps.

apt-get install dataset-fashion-mnist; python benchmarks/search/supernet_learning.py
python benchmarks/search/supernet_learning.py --sharing entangled --steps 100 500 --space tf-nas-wose
python benchmarks/search/supernet_learning.py --data digits --sharing entangled --widths   # random widths in every step

Each step is one of a search's warm-up (SGD 0.025, momentum 0.9, weight decay 1e-5, batch 64, clipped at 5) on one path,
drawn uniformly, without augmentation. Accuracies are of the same random paths on the same held-out images (2,000 of
Fashion-MNIST, all of the digits), at the initial widths, BatchNorm by the statistics of batches of 100. One thread.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tfnas.compute.devices import open_device
from tfnas.data.sources.digits import load_digits
from tfnas.search.params import SearchParams
from tfnas.search.state import SearchState, Setting
from tfnas.search.steps import Stepper
from tfnas.search.supernet.supernet import WEIGHT_SHARING, Supernet
from tfnas.space import load_space
from tfnas.stages.params import load_params

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
SIZE, BATCH, HELD_OUT, PART = 32, 64, 2000, 100
NUM_CLASSES = 10

Images = tuple[Tensor, Tensor]


def fashion_mnist() -> tuple[Images, Images]:
    """Training images and 2,000 of the test images, 28 x 28 with a margin of 2 pixels."""
    parts = []
    for split, count in (("train", None), ("t10k", HELD_OUT)):
        pixels = _read_idx(FASHION_MNIST / f"{split}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:count]
        labels = _read_idx(FASHION_MNIST / f"{split}-labels-idx1-ubyte.gz", 8)[:count]
        parts.append((_finish(np.pad(pixels, ((0, 0), (2, 2), (2, 2)))), torch.from_numpy(labels.astype(np.int64))))
    return parts[0], parts[1]


def digits() -> tuple[Images, Images]:
    """scikit-learn's digits, enlarged to 32 x 32."""
    parts = []
    for split in ("train", "val"):
        chosen = [digit for digit in load_digits() if digit.split == split]
        pixels = np.stack([np.asarray(digit.picture(SIZE))[..., 0] for digit in chosen])
        parts.append((_finish(pixels), torch.tensor([digit.label for digit in chosen])))
    return parts[0], parts[1]


DATA = {"fashion-mnist": fashion_mnist, "digits": digits}


def _read_idx(path: Path, header: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def _finish(pixels: np.ndarray) -> Tensor:
    """(N, H, W) bytes to (N, 3, H, W) of zero mean and unit variance, about."""
    images = torch.from_numpy(pixels.astype(np.float32) / 255)
    return ((images - images.mean()) / images.std())[:, None].expand(-1, 3, -1, -1)


def learn(
    space: str, sharing: str, steps: Sequence[int], data: tuple[Images, Images], options: argparse.Namespace
) -> Iterator[tuple[int, list[float], float]]:
    """After each number of steps: accuracies of random paths in percent, and the seconds that training took."""
    setting = Setting(_params(sharing), options.seed)
    state = SearchState.initial(load_space(space), NUM_CLASSES, setting)
    stepper, supernet, random = (
        Stepper(state, setting, None),
        state.supernet,
        torch.Generator().manual_seed(options.seed),
    )
    (images, labels), held_out = data
    initial, seconds = supernet.widths(), 0.0
    for step in range(1, max(steps) + 1):
        chosen = torch.randint(len(labels), (BATCH,), generator=random)
        path = _random_path(supernet, random)
        start = time.perf_counter()
        if options.widths:
            _draw_widths(supernet, random)
        stepper.weight_step((images[chosen], labels[chosen]), [path])
        seconds += time.perf_counter() - start
        if step in steps:
            supernet.restore_widths(initial)
            yield step, _accuracies(stepper, held_out, options.paths), seconds


def _params(sharing: str) -> SearchParams:
    params = load_params(Path(__file__).parents[2] / "params.yaml").search
    weights = params.weights.model_copy(update={"learning_rate": 0.025, "momentum": 0.9, "weight_decay": 1e-5})
    return params.model_copy(update={"weights": weights, "weight_sharing": sharing, "gradient_clip": 5.0})


def _random_path(supernet: Supernet, random: torch.Generator) -> Tensor:
    return torch.randint(len(supernet.space.candidates), supernet.alphas.shape[:1], generator=random)


def _draw_widths(supernet: Supernet, random: torch.Generator) -> None:
    """Of entangled operations: their leaves do not change with their widths."""
    for operation in supernet.operations():
        low = operation.max_width // 2
        operation.restore_width(int(torch.randint(low, operation.max_width + 1, (), generator=random)))


def _accuracies(stepper: Stepper, held_out: Images, paths: int) -> list[float]:
    random, (images, labels) = torch.Generator().manual_seed(1), held_out
    found = []
    for _ in range(paths):
        path = _random_path(stepper.supernet, random)
        parts = zip(images.split(PART), labels.split(PART), strict=True)
        found.append(100 * sum(stepper.count_correct(part, path).top1 for part in parts) / len(labels))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", nargs="+", default=["tf-nas"])
    parser.add_argument("--sharing", nargs="+", default=list(WEIGHT_SHARING), choices=list(WEIGHT_SHARING))
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 200, 500])
    parser.add_argument("--data", default="fashion-mnist", choices=list(DATA))
    parser.add_argument("--paths", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--widths", action="store_true", help="random widths in every step (entangled only)")
    options = parser.parse_args()
    if options.widths and "none" in options.sharing:
        parser.error("--widths needs --sharing entangled")
    open_device("cpu", 1)
    data = DATA[options.data]()
    print("space           sharing    steps   mean   std   min   max  s/step")
    for space in options.space:
        for sharing in options.sharing:
            for step, found, seconds in learn(space, sharing, options.steps, data, options):
                spread = statistics.pstdev(found)
                numbers = f"{statistics.mean(found):6.1f} {spread:5.1f} {min(found):5.1f} {max(found):5.1f}"
                print(f"{space:15} {sharing:10} {step:5} {numbers} {seconds / step:7.3f}", flush=True)


if __name__ == "__main__":
    main()
