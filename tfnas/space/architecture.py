"""What an architecture is: stem, MBInvRes blocks, head (the rows of Tables 14-25)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfnas.runtime.artifacts import read_json, write_json
from tfnas.runtime.errors import UserError
from tfnas.space.space import Head, Stem, halve

KIND = "architecture"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Block:
    """One MBInvRes block (Appendix A); the columns of the paper's Tables 14-25.

    `expand_channels <= in_channels` means: no expansion convolution, the depthwise convolution
    works on the input itself (as the authors' code).
    """

    kernel: int
    in_channels: int
    expand_channels: int
    se_channels: int
    out_channels: int
    act: str
    stride: int
    stage: int = 0  # of Table 1; elasticity-scaling groups by it

    @property
    def has_residual(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class Architecture:
    """A whole network, without its number of classes and its input resolution."""

    name: str
    space: str
    stem: Stem
    blocks: tuple[Block, ...]
    head: Head
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def load(cls, path: str | Path) -> Architecture:
        """Read the JSON written by `save`.

        Raises:
            UserError: the file is missing, is not JSON, or is not an architecture.
        """
        return cls.from_dict(read_json(path, kind=KIND, version=FORMAT_VERSION), source=str(path))

    def save(self, path: str | Path) -> None:
        """Write JSON, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def from_dict(cls, payload: dict[str, Any], *, source: str = "architecture") -> Architecture:
        try:
            return cls(
                name=payload["name"],
                space=payload["space"],
                stem=Stem(**payload["stem"]),
                blocks=tuple(Block(**block) for block in payload["blocks"]),
                head=Head(**payload["head"]),
                extra=payload.get("extra", {}),
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{source}: not a complete architecture ({error}); write it anew with tfnas") from None

    def to_dict(self) -> dict[str, Any]:
        return {"kind": KIND, "format_version": FORMAT_VERSION, **json.loads(json.dumps(asdict(self)))}

    def block_resolutions(self, resolution: int) -> Iterator[tuple[int, Block]]:
        """(input height and width of the block, block), for a network input of `resolution`."""
        size = halve(resolution, self.stem.stride)
        for block in self.blocks:
            yield size, block
            size = halve(size, block.stride)
