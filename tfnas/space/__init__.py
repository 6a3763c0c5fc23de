"""What an architecture is: search spaces, operations, networks, complexity, the published networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.jobs.lazy import import_later
from tfnas.space.architecture import Architecture, Block
from tfnas.space.network import count_macs, count_params
from tfnas.space.space import Candidate, Head, Layer, Space, StageSpec, Stem, load_space

if TYPE_CHECKING:
    from tfnas.space.network import build_network

__all__ = [
    "Architecture",
    "Block",
    "Candidate",
    "Head",
    "Layer",
    "Space",
    "StageSpec",
    "Stem",
    "build_network",
    "count_macs",
    "count_params",
    "load_space",
]

__getattr__ = import_later(
    __name__,
    {  # needs torch, whose import takes longer than all that reads a space
        "build_network": "tfnas.space.network",
    },
)
