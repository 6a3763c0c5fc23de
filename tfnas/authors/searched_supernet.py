"""Deriving a network from the authors' searched supernet (`searched_model_XX.pth.tar`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from tfnas.authors.checkpoint import read_checkpoint
from tfnas.runtime.errors import UserError
from tfnas.space import Architecture, Candidate, Space
from tfnas.space.assemble import Choice, assemble

# the order of their candidates, under our names; a supernet without SE has the first four
_CANDIDATES = ("k3_e3", "k3_e6", "k5_e3", "k5_e6", "k3_e3_se", "k3_e6_se", "k5_e3_se", "k5_e6_se")


def read_searched_supernet(path: str | Path, space: Space, *, name: str | None = None) -> Architecture:
    """The strongest operation of each layer and depth of each stage (Eq. 10, 11), with the widths of its mask.

    Their stages 1 to 6 are the searchable stages of `space`, in order. A width is the number of ones in
    `mc_mask_dddict[stage][block][operation]`. Equal strengths go to the first, as in their parser.

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


def _fail(path: Path, what: str) -> NoReturn:
    raise UserError(f"{path}: {what}")
