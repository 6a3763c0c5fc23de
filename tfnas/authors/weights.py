"""The authors' trained weights (`.pth.tar` of their training script) in our networks."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from tfnas.authors.checkpoint import read_checkpoint
from tfnas.runtime.errors import UserError

_OUTER = {"first_stem": "stem", "feature_mix_layer": "head", "classifier": "classifier"}
_UNITS = {"inverted_bottleneck": "expand", "depth_conv": "depthwise", "point_linear": "project"}
_LEAVES = {"conv": "conv", "bn": "norm", "linear": "linear"}
_EXCITES = {"conv_reduce": "reduce", "conv_expand": "expand"}
_BLOCK = re.compile(r"(?:second_stem|stage(\d)\.(\d+))\.(\w+)\.(\w+)\.(\w+)")
_LAYER = re.compile(r"(first_stem|feature_mix_layer|classifier)\.(conv|bn|linear)\.(\w+)")


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Fill a network of `build_network` with the authors' weights; returns the same network.

    Raises:
        UserError: as `read_weights`; or a tensor is missing, left over or of another shape.
    """
    ours, theirs = network.state_dict(), read_weights(path)
    for name, tensor in ours.items():
        if name not in theirs:
            raise UserError(f"{path}: has nothing for {name}; pass the weights of this architecture")
        if theirs[name].shape != tensor.shape:
            found, expected = tuple(theirs[name].shape), tuple(tensor.shape)
            raise UserError(f"{path}: {name} has shape {found}, the network {expected}; pass its own weights")
    left_over = sorted(set(theirs) - set(ours))
    if left_over:
        raise UserError(f"{path}: {left_over[0]} is not in the network; pass the weights of this architecture")
    network.load_state_dict(theirs)
    return network


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The authors' weights under our names.

    Their blocks lie in `second_stem` and in the lists `stage1` to `stage6`; ours are one list.

    Raises:
        UserError: missing, truncated or unsafe file, or a tensor that no such network has.
    """
    state = read_checkpoint(path)["state_dict"]
    matches = {key: _BLOCK.fullmatch(key) for key in state}
    places = sorted({_place(match) for match in matches.values() if match})
    renamed = {}
    for key, tensor in state.items():
        match = matches[key]
        name = _block_name(match, places.index(_place(match))) if match else _layer_name(key)
        if name is None:
            raise UserError(f"{path}: tensor {key!r} is in no network of the authors; pass their trained weights")
        renamed[name] = tensor
    return renamed


def _place(match: re.Match[str]) -> tuple[int, int]:
    """(stage, position) of a block in their naming; (0, 0) is `second_stem`."""
    return int(match[1] or 0), int(match[2] or 0)


def _block_name(match: re.Match[str], index: int) -> str | None:
    unit, leaf, tensor = match[3], match[4], match[5]
    if unit == "squeeze_excite":
        return f"blocks.{index}.squeeze_excite.{_EXCITES[leaf]}.{tensor}" if leaf in _EXCITES else None
    known = unit in _UNITS and leaf in ("conv", "bn")
    return f"blocks.{index}.{_UNITS[unit]}.{_LEAVES[leaf]}.{tensor}" if known else None


def _layer_name(key: str) -> str | None:
    match = _LAYER.fullmatch(key)
    return f"{_OUTER[match[1]]}.{_LEAVES[match[2]]}.{match[3]}" if match else None
