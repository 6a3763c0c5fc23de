"""A small network with trained-looking statistics, its files, and pictures of two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tfnas.space import Architecture, Block, Head, Stem, build_network
from tfnas.train.weights import save_weights

RESOLUTION = 16
CLASSES = ("dark", "light", "middle")


def calibrate(network: nn.Module, resolution: int) -> nn.Module:
    """Running statistics of random images, so that logits are about 1 and a difference means something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(4, 3, resolution, resolution))
    return network.eval()


@pytest.fixture
def architecture() -> Architecture:
    return Architecture(
        name="small",
        space="test",
        stem=Stem(kernel=3, in_channels=3, out_channels=8, stride=2, act="relu"),
        blocks=(
            Block(3, 8, 16, 4, 8, "relu", 1),
            Block(5, 8, 24, 6, 12, "swish", 2),
            Block(3, 12, 30, 0, 12, "relu6", 1),
        ),
        head=Head(out_channels=16, act="swish"),
    )


@pytest.fixture
def network(architecture) -> nn.Module:
    torch.manual_seed(0)
    return calibrate(build_network(architecture, len(CLASSES)), RESOLUTION)


@pytest.fixture
def files(architecture, network, tmp_path) -> tuple[Path, Path]:
    """architecture.json and weights.pt."""
    architecture.save(tmp_path / "architecture.json")
    save_weights(network, tmp_path / "weights.pt")
    return tmp_path / "architecture.json", tmp_path / "weights.pt"


@pytest.fixture
def pictures(tmp_path) -> Path:
    """data/val/<class>/*.png, of 1, 2 and 3 noisy pictures."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(CLASSES, start=1):
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        for index in range(number):
            pixels = generator.integers(0, 256, (RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "data"
