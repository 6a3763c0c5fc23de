"""Whether all published networks export: the largest difference of a logit to eager, batches of 1 and 7.

    python benchmarks/export_zoo.py [--resolution 224]

Weights are fresh, with BatchNorm's statistics of random images, so that logits are about 1 as in a trained network. It
takes about 20 seconds a network.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn

from tfnas.deploy.export import EXPORTS, export_checked
from tfnas.space import build_network, zoo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=224, metavar="N")
    resolution = parser.parse_args().resolution
    torch.set_num_threads(1)
    for name in zoo.names():
        torch.manual_seed(0)
        network = calibrate(build_network(zoo.load(name)), resolution)
        with torch.inference_mode():
            spread = network(torch.randn(2, 3, resolution, resolution)).std().item()
        found = []
        for suffix in EXPORTS:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{name}.{suffix}"
                runner = export_checked(network, resolution, path, threads=1, tolerance=1e-4)
                found.append(f"{suffix} {runner.difference:.2g} ({path.stat().st_size / 1e6:.1f} MB)")
        print(f"{name:15} {', '.join(found)}; logits spread by {spread:.2g}", flush=True)


def calibrate(network: nn.Module, resolution: int) -> nn.Module:
    """Running statistics of random images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(8, 3, resolution, resolution))
    return network.eval()


if __name__ == "__main__":
    main()
