"""The authors' own tables, and files in their formats made from our networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tfnas.space import Architecture, Block

AUTHORS = Path(__file__).parents[3] / "shared/authors"

OUTER = {"stem": "first_stem", "head": "feature_mix_layer", "classifier": "classifier"}
INNER = {
    "expand": "inverted_bottleneck",
    "depthwise": "depth_conv",
    "project": "point_linear",
    "reduce": "conv_reduce",
    "norm": "bn",
}


@pytest.fixture(scope="session")
def authors_file() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        path = AUTHORS / name
        if not path.is_file():
            pytest.skip(f"the authors' {name} is not at {path}")
        return path

    return find


@pytest.fixture(scope="session")
def config_of() -> Callable[[Architecture, int], dict[str, Any]]:
    def config(architecture: Architecture, num_classes: int = 1000) -> dict[str, Any]:
        """The network as their `model.config` describes it."""
        plain = {"groups": 1, "has_shuffle": False, "bias": False, "use_bn": True, "affine": True}
        stem, head, last = architecture.stem, architecture.head, architecture.blocks[-1]

        def convolution(kernel: int, stride: int, in_channels: int, out_channels: int, act: str) -> dict[str, Any]:
            shape = {"kernel_size": kernel, "stride": stride, "in_channels": in_channels, "out_channels": out_channels}
            return {"name": "ConvLayer", **shape, **plain, "act_func": act, "ops_order": "weight_bn_act"}

        def block_config(block: Block) -> dict[str, Any]:
            return {
                "name": "MBInvertedResBlock",
                "in_channels": block.in_channels,
                "mid_channels": block.expand_channels,
                "se_channels": block.se_channels,
                "out_channels": block.out_channels,
                "kernel_size": block.kernel,
                "stride": block.stride,
                **plain,
                "act_func": block.act,
            }

        stages = {
            f"stage{stage - 2}": [block_config(block) for block in architecture.blocks if block.stage == stage]
            for stage in range(3, 9)
        }
        return {
            "first_stem": convolution(stem.kernel, stem.stride, stem.in_channels, stem.out_channels, stem.act),
            "second_stem": block_config(architecture.blocks[0]),
            **stages,
            "feature_mix_layer": convolution(1, 1, last.out_channels, head.out_channels, head.act),
            "classifier": {
                "name": "LinearLayer",
                "in_features": head.out_channels,
                "out_features": num_classes,
                "bias": True,
                "use_bn": False,
                "affine": False,
                "act_func": None,
                "ops_order": "weight_bn_act",
            },
        }

    return config


@pytest.fixture(scope="session")
def state_of() -> Callable[..., dict[str, Tensor]]:
    def state(network: nn.Module, prefix: str = "module.") -> dict[str, Tensor]:
        """The network's tensors under the names of their code."""
        blocks = network.get_submodule("blocks")
        stages = [block.block.stage for block in blocks]
        renamed = OrderedDict()
        for name, tensor in network.state_dict().items():
            first, *rest = name.split(".")
            if first == "blocks":
                index = int(rest.pop(0))
                position = index - stages.index(stages[index])
                place = f"stage{stages[index] - 2}.{position}" if index else "second_stem"
                is_se = rest[0] == "squeeze_excite"
                rest = [("conv_expand" if is_se and part == "expand" else INNER.get(part, part)) for part in rest]
            else:
                place, rest = OUTER[first], [INNER.get(part, part) for part in rest]
            renamed[prefix + ".".join([place, *rest])] = tensor.clone()
        return renamed

    return state


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module], nn.Module]:
    @torch.no_grad()
    def fill(network: nn.Module) -> nn.Module:
        """Random weights and statistics everywhere, so that no two tensors are alike."""
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "running_var" in name else tensor.normal_(0, 0.1)
            else:
                tensor.fill_(7)
        return network

    return fill
