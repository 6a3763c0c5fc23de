"""Files that took seconds to convert, kept across visits and runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tfnas.jobs.artifacts import digest_file


@runtime_checkable
class Keeping(Protocol):
    """A backend whose `prepare` converts a module, for seconds, unless its file is there."""

    @property
    def keeps(self) -> bool:
        """Whether it does so with its options."""
        ...

    def keep(self, module: nn.Module, example: Tensor) -> Path:
        """The converted file, from the cache if this very module was converted before."""
        ...


def kept_file(model: bytes, *, of: str, suffix: str, make: Callable[[Path], None], code: Iterable[str]) -> Path:
    """The file that `make` writes from a module, if it is not in the cache yet.

    Conversion takes up to seconds per block and a profile visits each block several times, always with the same
    weights.

    Args:
        model: the module as ONNX: graph, weights and shape.
        of: the runtime and its version.
        code: source files that convert; after a change of one, all is converted again.
    """
    digest = hashlib.sha256(model)
    digest.update(f"{of} {torch.__version__}".encode())
    for file in code:
        digest.update(_digest_once(file).encode())
    path = cache_folder() / of.split()[0] / f"{digest.hexdigest()[:32]}.{suffix}"
    if not path.is_file():
        make(path)
    return path


_digest_once = cache(digest_file)  # of the code that runs, even if the file is edited meanwhile


def cache_folder() -> Path:
    """Where converted blocks are kept, across runs; it may be deleted at any time."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "tfnas" / "converted"
