"""Whether an architecture step tells alpha which operations are better, before alpha has moved.

apt-get install dataset-fashion-mnist; python benchmarks/search/alpha_gradient.py

Warms a supernet up as searches.py does, then freezes it. The effect of an operation is what it adds to the
cross-entropy of a path, by least squares over 400 uniformly random paths on 256 validation images. Against it:
gradients of cross-entropy with respect to alpha, of single architecture steps with their own batch and noise, at
several tau; and what Adam's weight decay adds to them, decay x alpha. One thread.

rms             of a gradient's elements
signal / noise  rms of the mean gradient (the error of the mean taken off) to the standard deviation from step to step
correlation     of the mean gradient with the effects, over all layers and operations
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
from searches import NUM_CLASSES, make_loaders, make_params, warmed_supernet
from supernet_learning import BATCH, Images, fashion_mnist
from torch import Tensor
from torch.nn import functional

from tfnas.compute.devices import open_device
from tfnas.search.loop import run_warm_up
from tfnas.search.sampling import gumbel_noise, gumbel_softmax
from tfnas.search.state import Setting
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import load_space

PATHS, IMAGES, RIDGE = 400, 256, 5.0
STEPS = {"all": 24, "one": 48}
SETTINGS = argparse.Namespace(  # the effects and gradients depend on the warm-up's alone
    temperature=[5.0, 1.0], epochs=5, rate=0.025, alpha_rate=0.2, alpha_decay=0.0, every=2, paths="all", lambda_=0.1,
    sharing="entangled", importance="projection",
)  # fmt: skip


def draw_batch(images: Images, count: int, random: torch.Generator) -> Images:
    chosen = torch.randint(len(images[1]), (count,), generator=random)
    return images[0][chosen].contiguous(memory_format=torch.channels_last), images[1][chosen]


@torch.no_grad()
def measure_effects(supernet: Supernet, images: Images, random: torch.Generator) -> tuple[np.ndarray, float, float]:
    """(L, K) effects in nats from their layer's mean; their split-half correlation; std of the paths' losses."""
    layers, operations = supernet.alphas.shape
    paths = torch.randint(operations, (PATHS, layers), generator=random)
    batch, labels = draw_batch(images, IMAGES, random)
    losses = np.array([functional.cross_entropy(supernet.forward_path(batch, p), labels).item() for p in paths])
    chosen = np.eye(operations)[paths.numpy()].reshape(PATHS, -1) - 1 / operations

    def fit(part: slice) -> np.ndarray:
        x, y = chosen[part], losses[part] - losses[part].mean()
        effects = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y).reshape(layers, operations)
        return np.asarray(effects - effects.mean(1, keepdims=True))

    halves = fit(slice(PATHS // 2)), fit(slice(PATHS // 2, None))
    return fit(slice(None)), correlation(*halves), float(losses.std())


def gradients(
    supernet: Supernet, images: Images, kind: str, temperature: float, random: torch.Generator
) -> Iterator[Tensor]:
    """(L, K) of single architecture steps, without the latency."""
    forward = supernet.forward_mixed if kind == "all" else supernet.forward_sampled
    for _ in range(STEPS[kind]):
        batch, labels = draw_batch(images, BATCH, random)
        noise = gumbel_noise(supernet.alphas.shape, random)
        loss = functional.cross_entropy(
            forward(batch, gumbel_softmax(supernet.operation_logits(), temperature, noise)), labels
        )
        yield torch.autograd.grad(loss, [supernet.alphas])[0]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="tf-nas")
    parser.add_argument("--sharing", default="entangled", choices=["none", "entangled"])
    parser.add_argument("--warmup-epochs", type=int, default=3)
    parser.add_argument("--warmup-steps", type=int, default=100, help="per epoch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    open_device("cpu", 1)
    settings = argparse.Namespace(
        **vars(SETTINGS) | {"sharing": options.sharing, "warmup_epochs": options.warmup_epochs}
    )
    setting, space = Setting(make_params(settings), options.seed), load_space(options.space)
    loaders = make_loaders(fashion_mnist()[0], options.warmup_steps, options.seed)
    supernet = warmed_supernet(space, run_warm_up(space, loaders, setting), setting)
    for weight in supernet.weight_parameters():
        weight.requires_grad_(False)
    random, images = torch.Generator().manual_seed(options.seed), loaders.val.images  # type: ignore[attr-defined]
    effects, agreement, spread = measure_effects(supernet, images, random)
    print(f"{PATHS} random paths: cross-entropy std {spread:.4f}; effects of operations: std {effects.std():.4f} nats,")
    print(f"split-half correlation {agreement:.2f}; {NUM_CLASSES} classes")
    decay = 5e-4 * float(supernet.alphas.detach().abs().mean())
    print(f"weight decay 5e-4 adds {decay:.1e} to each element")
    print("paths  tau      rms  signal / noise  correlation  s/step")
    for kind in STEPS:
        for temperature in (5.0, 1.0, 0.2):
            start = time.perf_counter()
            taken = torch.stack(list(gradients(supernet, images, kind, temperature, random))).numpy()
            seconds, mean, variance = time.perf_counter() - start, taken.mean(0), taken.var(0, ddof=1).mean()
            signal = np.sqrt(max((mean**2).mean() - variance / len(taken), 0.0) / variance)
            print(
                f"{kind:5} {temperature:4.1f} {np.sqrt((taken**2).mean()):8.1e} {signal:15.3f}"
                f" {correlation(mean, effects):12.2f} {seconds / len(taken):7.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
