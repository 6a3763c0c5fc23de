"""Opening the authors' `.pth.tar` files: tensors, dicts and numbers only, on the CPU."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfnas.runtime.errors import UserError

_REFUSED = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what it does not admit


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What their training or search script saved, with `state_dict` free of DataParallel's `module.`.

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
    """In our words: torch's own advise to load the file without the check."""
    refused = _REFUSED.search(str(error))
    if refused:
        return f"refers to {refused[1]}; a complete checkpoint holds tensors, dicts and numbers only: refused"
    return "is not a checkpoint; pass one of the authors' .pth.tar files, complete"


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0]
