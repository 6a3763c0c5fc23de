"""The authors' `.pth.tar` files: trained weights in our networks, and a network derived from a searched supernet.

Only tensors, dicts and numbers are loaded, on the CPU.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from tfnas.jobs.errors import UserError
from tfnas.jobs.state_dicts import STATE_DICT, find_mismatch, read_checkpoint, tensors_by_name
from tfnas.space import Architecture, Candidate, Space
from tfnas.space.membership import Choice, assemble

FIX = "pass a complete .pth.tar that the authors' code wrote"
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
    theirs = read_authors_weights(path)
    mismatch = find_mismatch(network.state_dict(), theirs)
    if mismatch is not None:
        raise UserError(f"{path}: {mismatch}; pass the weights of this architecture")
    network.load_state_dict(theirs)
    return network


def read_authors_weights(path: str | Path) -> dict[str, Tensor]:
    """The authors' weights under our names.

    Their blocks are in `second_stem` and in the lists `stage1` to `stage6`; ours are one list.

    Raises:
        UserError: missing, truncated or unsafe file, or a tensor that no such network has.
    """
    _, state = _read(Path(path))
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
    checkpoint, state = _read(path)
    masks = checkpoint.get("mc_mask_dddict")
    if not isinstance(masks, dict):
        _fail(path, "holds no 'mc_mask_dddict' (the widths)")
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


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What their training or search script saved, and its weights."""
    checkpoint = read_checkpoint(path, fix=FIX)
    if STATE_DICT not in checkpoint:
        _fail(path, f"holds no {STATE_DICT!r}; {FIX}")
    return checkpoint, tensors_by_name(checkpoint[STATE_DICT], path, fix=FIX)


def _fail(path: Path, what: str) -> NoReturn:
    raise UserError(f"{path}: {what}")
