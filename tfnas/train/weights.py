"""weights.pt: the plain state of a network, and the way back."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from tfnas.runtime.artifacts import atomic_path
from tfnas.runtime.errors import UserError


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state dict, on the CPU and in the usual memory order, atomically."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file; runs no code of the file's.

    Raises:
        UserError: missing, truncated, or no state dict.
    """
    path = Path(path)
    damaged = UserError(f"{path}: is not a file of weights, or is cut short; delete it and train again")
    if not path.is_file():
        raise UserError(f"{path}: cannot be read (there is no such file); run the stage that writes it")
    if not zipfile.is_zipfile(path):  # what torch.save writes
        raise damaged
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        raise damaged from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds something other than weights by name; pass a weights.pt of tfnas")
    return state


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Put the weights of a file into a network.

    Raises:
        UserError: the file cannot be read, or belongs to another network; names the first difference.
    """
    state = read_weights(path)
    fault = find_mismatch(network, state)
    if fault is not None:
        raise UserError(f"{path}: {fault}; pass the weights and the architecture of one training")
    network.load_state_dict(state)


def find_mismatch(network: nn.Module, state: dict[str, Tensor]) -> str | None:
    """The first way in which the state is not one of the network; None when it is."""
    expected = network.state_dict()
    for key, value in expected.items():
        if key not in state:
            return f"has no {key}, which the network has"
        if state[key].shape != value.shape:
            return f"{key} has shape {list(state[key].shape)}, the network's has {list(value.shape)}"
    extra = next((key for key in state if key not in expected), None)
    return None if extra is None else f"has {extra}, which the network has not"
