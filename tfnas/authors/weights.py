"""The authors' `.pth.tar` files: trained weights in our networks, and a network derived from a searched supernet.

Only tensors, dicts and numbers are loaded, on the CPU.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, Candidate, Space
from tfnas.space.membership import Choice, assemble

_REFUSED = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what it does not admit
_OUTER = {"first_stem": "stem", "feature_mix_layer": "head", "classifier": "classifier"}
_UNITS = {"inverted_bottleneck": "expand", "depth_conv": "depthwise", "point_linear": "project"}
_LEAVES = {"conv": "conv", "bn": "norm", "linear": "linear"}
_EXCITES = {"conv_reduce": "reduce", "conv_expand": "expand"}
_BLOCK = re.compile(r"(?:second_stem|stage(\d)\.(\d+))\.(\w+)\.(\w+)\.(\w+)")
_LAYER = re.compile(r"(first_stem|feature_mix_layer|classifier)\.(conv|bn|linear)\.(\w+)")
# the order of their candidates, under our names; a supernet without SE has the first four
_CANDIDATES = ("k3_e3", "k3_e6", "k5_e3", "k5_e6", "k3_e3_se", "k3_e6_se", "k5_e3_se", "k5_e6_se")


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Fill a network of `build_network` with the authors' weights; returns the same network.

    Raises:
        UserError: as `read_authors_weights`; or a tensor is missing, left over or of another shape.
    """
    ours, theirs = network.state_dict(), read_authors_weights(path)
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


def read_authors_weights(path: str | Path) -> dict[str, Tensor]:
    """The authors' weights under our names.

    Their blocks are in `second_stem` and in the lists `stage1` to `stage6`; ours are one list.

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


def read_searched_supernet(path: str | Path, space: Space, *, name: str | None = None) -> Architecture:
    """The strongest operation of each layer and depth of each stage (Eq. 10, 11), with the widths of its mask.

    Their stages 1 to 6 are the searchable stages of `space`, in order. A width is the number of ones in
    `mc_mask_dddict[stage][block][operation]`. Ties go to the first, as in their parser.

    Args:
        name: of the architecture; default the file's name.

    Raises:
        UserError: missing, truncated or unsafe file, or one that does not fit the space.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    masks = checkpoint.get("mc_mask_dddict")
    if not isinstance(masks, dict):
        _fail(path, "holds no 'mc_mask_dddict' (the widths)")
    state = checkpoint["state_dict"]
    choices: dict[int, list[Choice]] = {}
    for number, stage in enumerate(space.searchable_stages, start=1):
        depth = _strongest(path, state, f"stage{number}.betas", stage.max_depth) + 1
        choices[stage.stage] = []
        for position in range(1, depth + 1):
            where = f"stage{number}.block{position}"
            operation = _strongest(path, state, f"{where}.log_alphas", len(space.candidates))
            candidate = _candidate(path, space, operation)
            in_channels = stage.in_channels if position == 1 else stage.out_channels
            mask = _mask(path, masks, (f"stage{number}", f"block{position}", operation))
            choices[stage.stage].append((candidate, _width(path, where, mask, candidate.width_range(in_channels))))
    return assemble(space, name or path.name, choices)


def _strongest(path: Path, state: dict[str, Tensor], key: str, count: int) -> int:
    if key not in state:
        _fail(path, f"has no {key!r}; expected the supernet that their search saves")
    if state[key].shape != (count,):
        _fail(path, f"{key} has shape {tuple(state[key].shape)}, the space asks for ({count},); pass its own --space")
    return int(state[key].argmax())


def _candidate(path: Path, space: Space, operation: int) -> Candidate:
    names = [candidate.name for candidate in space.candidates]
    wanted = _CANDIDATES[operation] if operation < len(_CANDIDATES) else f"operation {operation}"
    if wanted not in names:
        _fail(path, f"chooses {wanted}, which space {space.name} does not have ({', '.join(names)})")
    return space.candidates[names.index(wanted)]


def _mask(path: Path, masks: dict[Any, Any], keys: tuple[str, str, int]) -> Tensor:
    found: Any = masks
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, Tensor):
        _fail(path, f"mc_mask_dddict has no tensor for {'.'.join(map(str, keys))}")
    return found


def _width(path: Path, where: str, mask: Tensor, limits: tuple[int, int]) -> int:
    low, high = limits
    width = int(mask.sum())
    if mask.shape != (high,) or not low <= width <= high:
        _fail(path, f"{where}: width {width} of {mask.numel()}, the space has {low} to {high}")
    return width


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What their training or search script saved; `state_dict` without DataParallel's prefix `module.`.

    Raises:
        UserError: missing, truncated, unsafe to load, or without a `state_dict` of tensors.
    """
    path = Path(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); pass one of the authors' .pth.tar files") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_refusal(error)}") from None
    except Exception as error:  # a truncated file raises RuntimeError, EOFError, KeyError and others
        raise UserError(f"{path}: is not a complete checkpoint ({_first_sentence(error)}); download it again") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path}: holds no 'state_dict'; pass a .pth.tar that the authors' code wrote")
    for key, value in checkpoint["state_dict"].items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: state_dict has {key!r} with a {type(value).__name__}, expected a tensor")
    state = {key.removeprefix("module."): value for key, value in checkpoint["state_dict"].items()}
    return {**checkpoint, "state_dict": state}


def _refusal(error: pickle.UnpicklingError) -> str:
    """In our words: torch's own message advises loading the file without the check."""
    refused = _REFUSED.search(str(error))
    if refused:
        return f"refers to {refused[1]}; a complete checkpoint holds tensors, dicts and numbers only: refused"
    return "is not a checkpoint; pass one of the authors' .pth.tar files, complete"


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0]


def _fail(path: Path, what: str) -> NoReturn:
    raise UserError(f"{path}: {what}")
