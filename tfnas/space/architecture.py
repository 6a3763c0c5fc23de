"""What an architecture is: stem, MBInvRes blocks, head (the rows of Tables 14-25); its multiply-adds and parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfnas.jobs.artifacts import read_json, write_json
from tfnas.jobs.errors import UserError
from tfnas.space.space import ACTIVATIONS, Head, Stem, halve

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
        """The architecture in plain data; `source` names it in errors.

        Raises:
            UserError: a key is missing or unknown, or the network cannot be built.
        """
        try:
            architecture = cls(
                name=payload["name"],
                space=payload["space"],
                stem=Stem(**payload["stem"]),
                blocks=tuple(Block(**block) for block in payload["blocks"]),
                head=Head(**payload["head"]),
                extra=payload.get("extra", {}),
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{source}: not a complete architecture ({error}); write it anew with tfnas") from None
        fault = first_violation(architecture)
        if fault is not None:
            raise UserError(f"{source}: {fault}")
        return architecture

    def to_dict(self) -> dict[str, Any]:
        return {"kind": KIND, "format_version": FORMAT_VERSION, **json.loads(json.dumps(asdict(self)))}

    def block_resolutions(self, resolution: int) -> Iterator[tuple[int, Block]]:
        """(input height and width of the block, block), for a network input of `resolution`."""
        size = halve(resolution, self.stem.stride)
        for block in self.blocks:
            yield size, block
            size = halve(size, block.stride)


def first_violation(architecture: Architecture) -> str | None:
    """Why the network cannot be built, as `where: what is wrong`; None for a sound one."""
    if not architecture.blocks:
        return "blocks: the list is empty; a network has at least one block"
    parts: list[tuple[str, Stem | Block | Head]] = [("stem", architecture.stem)]
    parts += [(f"blocks.{i}", block) for i, block in enumerate(architecture.blocks)]
    parts.append(("head", architecture.head))
    for where, part in parts:
        for key, value in asdict(part).items():
            fault = _value_fault(key, value)
            if fault is not None:
                return f"{where}.{key}: {fault}, got {value!r}"
    channels = architecture.stem.out_channels
    for i, block in enumerate(architecture.blocks):
        if block.in_channels != channels:
            return f"blocks.{i}.in_channels: is {block.in_channels}, the part before it gives {channels}"
        channels = block.out_channels
    return None


def _value_fault(key: str, value: object) -> str | None:
    if key == "act":
        return None if value in ACTIVATIONS else f"expected one of {', '.join(ACTIVATIONS)}"
    if isinstance(value, bool) or not isinstance(value, int):
        return "expected a whole number"
    if key == "kernel":
        return None if value > 0 and value % 2 == 1 else "expected an odd number: an even kernel changes the size"
    if key in ("se_channels", "stage"):
        return None if value >= 0 else "expected 0 or more"
    if key == "stride":
        return None if value in (1, 2) else "expected 1 or 2"
    return None if value >= 1 else "expected 1 or more"


def count_macs(architecture: Architecture, resolution: int = 224, num_classes: int = 1000) -> int:
    """Multiply-adds of one image: convolutions (SE included) and the classifier.

    Biases, BatchNorm and activations are not counted (as Table 2, "FLOPs").
    """
    stem, head = architecture.stem, architecture.head
    size = halve(resolution, stem.stride)
    total = stem.kernel**2 * stem.in_channels * stem.out_channels * size**2
    for block_size, block in architecture.block_resolutions(resolution):
        total += block_macs(block, block_size)
        size = halve(block_size, block.stride)
    total += architecture.blocks[-1].out_channels * head.out_channels * size**2
    return total + head.out_channels * num_classes


def block_macs(block: Block, resolution: int) -> int:
    """Multiply-adds of one MBInvRes block at an input of `resolution`."""
    width = max(block.expand_channels, block.in_channels)
    out_size = halve(resolution, block.stride)
    expand = block.in_channels * width * resolution**2 if block.expand_channels > block.in_channels else 0
    depthwise = block.kernel**2 * width * out_size**2
    squeeze_excite = 2 * width * block.se_channels
    project = width * block.out_channels * out_size**2
    return expand + depthwise + squeeze_excite + project


def count_params(architecture: Architecture, num_classes: int = 1000) -> int:
    """Trainable parameters: convolutions, SE with biases, BatchNorm's two per channel, classifier."""
    stem, head = architecture.stem, architecture.head
    total = stem.out_channels * (stem.kernel**2 * stem.in_channels + 2)
    total += sum(block_params(block) for block in architecture.blocks)
    total += head.out_channels * (architecture.blocks[-1].out_channels + 2)
    return total + (head.out_channels + 1) * num_classes


def block_params(block: Block) -> int:
    """Trainable parameters of one MBInvRes block."""
    width = max(block.expand_channels, block.in_channels)
    expand = width * (block.in_channels + 2) if block.expand_channels > block.in_channels else 0
    depthwise = width * (block.kernel**2 + 2)
    squeeze_excite = (2 * width + 1) * block.se_channels + width if block.se_channels else 0
    project = block.out_channels * (width + 2)
    return expand + depthwise + squeeze_excite + project
