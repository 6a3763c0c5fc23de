"""The paper's tables, arbitrary architectures, and an independent count of a built network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tfnas.space import Architecture, Block, Candidate, Head, Space, Stem
from tfnas.space.membership import assemble
from tfnas.space.space import ACTIVATIONS

PAPER = Path(__file__).parents[3] / "shared/paper/architectures.json"


@pytest.fixture(scope="session")
def published() -> dict[str, list[dict[str, Any]]]:
    """Tables 14-25 as transcribed from the paper, apart from our zoo."""
    if not PAPER.is_file():
        pytest.skip(f"the paper's tables are not at {PAPER}")
    return json.loads(PAPER.read_text(encoding="utf-8"))["architectures"]


@pytest.fixture(scope="session")
def draw_member() -> Callable[[Space, np.random.Generator], Architecture]:
    def draw(space: Space, random: np.random.Generator) -> Architecture:
        """A random network of the space."""
        choices: dict[int, list[tuple[Candidate, int]]] = {}
        for stage in space.searchable_stages:
            choices[stage.stage] = []
            for position in range(random.integers(stage.min_depth, stage.max_depth + 1)):
                candidate = space.candidates[random.integers(len(space.candidates))]
                low, high = candidate.width_range(stage.out_channels if position else stage.in_channels)
                choices[stage.stage].append((candidate, int(random.integers(low, high + 1))))
        return assemble(space, "drawn", choices)

    return draw


@pytest.fixture(scope="session")
def draw_any() -> Callable[[np.random.Generator], Architecture]:
    def draw(random: np.random.Generator) -> Architecture:
        """A random small network of no space: any kernel, stride, width, also narrower than the input."""

        def pick(*values: Any) -> Any:
            return values[random.integers(len(values))]

        stem = Stem(pick(1, 3, 5), pick(1, 3), int(random.integers(1, 9)), pick(1, 2), pick(*ACTIVATIONS))
        blocks, channels = [], stem.out_channels
        for stage in range(2, 2 + int(random.integers(1, 5))):
            out_channels = pick(channels, int(random.integers(1, 9)))
            block = Block(
                kernel=pick(1, 3, 5, 7),
                in_channels=channels,
                expand_channels=int(random.integers(1, 3 * channels + 1)),
                se_channels=pick(0, int(random.integers(1, 6))),
                out_channels=out_channels,
                act=pick(*ACTIVATIONS),
                stride=pick(1, 2),
                stage=stage,
            )
            blocks.append(block)
            channels = out_channels
        head = Head(int(random.integers(1, 12)), pick(*ACTIVATIONS))
        return Architecture("drawn", "custom", stem, tuple(blocks), head)

    return draw


@pytest.fixture(scope="session")
def macs_by_hooks() -> Callable[[nn.Module, int], int]:
    def count(network: nn.Module, resolution: int) -> int:
        """Multiply-adds of one image, from the shapes that convolutions and linear layers really see."""
        found: list[int] = []

        def see(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            weight = module.get_parameter("weight")  # (out, in / groups, k, k) or (out, in)
            found.append(output.numel() * weight[0].numel())

        network = network.to("meta").eval()
        layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        handles = [layer.register_forward_hook(see) for layer in layers]
        in_channels = next(network.parameters()).shape[1]
        network(torch.empty(1, in_channels, resolution, resolution, device="meta"))
        for handle in handles:
            handle.remove()
        assert len(found) == len(layers)
        return sum(found)

    return count
