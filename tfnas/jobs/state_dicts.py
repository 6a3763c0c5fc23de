"""State dicts of others: read without running code from the file, and compared with a network's own."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

STATE_DICT = "state_dict"  # where training scripts keep the weights in a checkpoint
PARALLEL = "module."  # DataParallel's prefix
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what it does not admit


def read_state_dict(path: str | Path, *, fix: str) -> dict[str, Tensor]:
    """The weights in a file that `torch.save` wrote: a state dict, or a checkpoint that holds one as `state_dict`.

    Args:
        fix: what the user may do, for errors.

    Raises:
        UserError: as `read_checkpoint`; or no tensors by name.
    """
    contents = read_checkpoint(path, fix=fix)
    return tensors_by_name(contents.get(STATE_DICT, contents), path, fix=fix)


def read_checkpoint(path: str | Path, *, fix: str) -> dict[str, Any]:
    """The dict in a file that `torch.save` wrote, on the CPU; runs no code from the file.

    Args:
        fix: what the user may do, for errors.

    Raises:
        UserError: missing, cut short, unsafe to load, or no dict.
    """
    import torch

    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {fix}") from None
    except Exception as error:  # a damaged file raises RuntimeError, EOFError, KeyError and others
        raise UserError(f"{path}: {_reason(error)}; {fix}") from None
    if not isinstance(contents, dict):
        raise UserError(f"{path}: holds no weights by name; {fix}")
    return contents


def tensors_by_name(contents: Any, path: str | Path, *, fix: str) -> dict[str, Tensor]:
    """A checkpoint's state dict, without DataParallel's prefix.

    Raises:
        UserError: it is something other than tensors by name.
    """
    from torch import Tensor

    if not (isinstance(contents, dict) and contents):
        raise UserError(f"{path}: holds no weights by name; {fix}")
    for name, value in contents.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise UserError(f"{path}: expected tensors by name, got {name!r} with a {type(value).__name__}; {fix}")
    return {name.removeprefix(PARALLEL): value for name, value in contents.items()}


def find_mismatch(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """The first difference between a state dict and a network's own; None when the state fits.

    Args:
        expected: the network's own, on any device.
    """
    for name, value in expected.items():
        if name not in state:
            return f"has no {name}, which the network has"
        if state[name].shape != value.shape:
            return f"{name} has shape {list(state[name].shape)}, the network's has {list(value.shape)}"
    extra = next((name for name in state if name not in expected), None)
    return None if extra is None else f"has {extra}, which the network does not have"


def _reason(error: Exception) -> str:
    """In our words: torch's own message advises loading the file without the check."""
    if not isinstance(error, pickle.UnpicklingError):
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"is damaged or no file of weights ({lines[0].partition('. ')[0]})"
    refused = _REFUSED.search(str(error))
    if refused:
        return f"refers to {refused[1]}; weights are tensors, dicts and numbers only: refused"
    return "is damaged or no file of weights"
