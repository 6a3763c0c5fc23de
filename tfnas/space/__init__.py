"""What an architecture is: search spaces, operations, networks, complexity, the published networks."""

from tfnas.space.architecture import Architecture, Block
from tfnas.space.complexity import count_macs, count_params
from tfnas.space.network import build_network
from tfnas.space.space import Candidate, Head, Layer, Space, StageSpec, Stem, load_space

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
