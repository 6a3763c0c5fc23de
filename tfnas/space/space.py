"""The search space as data: stages, candidate operations, stem and head (Table 1, Table 10)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tfnas.runtime.artifacts import digest_params

ACTIVATIONS = ("relu", "relu6", "swish")


@dataclass(frozen=True)
class Stem:
    """Stage 1: the first convolution."""

    kernel: int
    in_channels: int
    out_channels: int
    stride: int
    act: str


@dataclass(frozen=True)
class Head:
    """Stage 9: the 1x1 convolution before pooling and classifier."""

    out_channels: int
    act: str


@dataclass(frozen=True)
class FixedOperation:
    """The only operation of a stage that is not searched (stage 2: k3_e1_e_se0.25)."""

    kernel: int
    expand_ratio: float
    se_ratio: float

    def width(self, in_channels: int) -> int:
        """Expansion channels, e * C_in."""
        return round(self.expand_ratio * in_channels)

    def se_channels(self, in_channels: int) -> int:
        """Channels of the squeeze-and-excitation bottleneck, e_se * C_in; 0 without."""
        return round(self.se_ratio * in_channels)


@dataclass(frozen=True)
class Candidate:
    """One row of Table 1 (right): an operation whose width varies within `expand_range`.

    Widths in channels are these ratios times the layer's input channels.
    """

    name: str
    kernel: int
    expand_ratio: float  # at the beginning of searching
    expand_range: tuple[float, float]
    se_ratio: float  # 0: without squeeze-and-excitation

    def initial_width(self, in_channels: int) -> int:
        """Expansion channels at the beginning of searching, e * C_in."""
        return round(self.expand_ratio * in_channels)

    def width_range(self, in_channels: int) -> tuple[int, int]:
        """Smallest and largest number of expansion channels."""
        low, high = self.expand_range
        return round(low * in_channels), round(high * in_channels)

    def se_channels(self, in_channels: int) -> int:
        """Channels of the squeeze-and-excitation bottleneck, e_se * C_in; 0 without."""
        return round(self.se_ratio * in_channels)


@dataclass(frozen=True)
class StageSpec:
    """One row of Table 1 (left). `fixed` is set where nothing is searched."""

    stage: int
    in_channels: int
    out_channels: int
    stride: int
    min_depth: int
    max_depth: int
    act: str
    fixed: FixedOperation | None = None


class Layer(NamedTuple):
    """One searchable (or fixed) layer of the widest, deepest network of the space."""

    stage: int
    position: int  # within the stage, from 1
    resolution: int  # height and width of its input
    in_channels: int
    out_channels: int
    stride: int
    act: str


@dataclass(frozen=True)
class Space:
    """A macro search space; `load_space` reads it from a YAML file."""

    name: str
    resolution: int
    stem: Stem
    stages: tuple[StageSpec, ...]
    candidates: tuple[Candidate, ...]
    head: Head

    @property
    def searchable_stages(self) -> tuple[StageSpec, ...]:
        return tuple(stage for stage in self.stages if stage.fixed is None)

    def layers(self, resolution: int | None = None) -> Iterator[Layer]:
        """Every layer at full depth in order, with its input resolution (input: `resolution`)."""
        size = halve(resolution or self.resolution, self.stem.stride)
        for stage in self.stages:
            in_channels = stage.in_channels
            for position in range(1, stage.max_depth + 1):
                stride = stage.stride if position == 1 else 1
                yield Layer(stage.stage, position, size, in_channels, stage.out_channels, stride, stage.act)
                size, in_channels = halve(size, stride), stage.out_channels

    def content(self) -> dict[str, Any]:
        """All that defines the space, as plain data: two spaces of one name may differ in it."""
        return dict(json.loads(json.dumps(asdict(self))))

    def fixed_content(self) -> dict[str, Any]:
        """The part of it that is the same in every network: stem, fixed stages, head."""
        content = self.content()
        fixed = [stage for stage in content["stages"] if stage["fixed"] is not None]
        return {"stem": content["stem"], "stages": fixed, "head": content["head"]}

    @property
    def digest(self) -> str:
        return digest_params(self.content())


def first_difference(then: Any, now: Any, where: str = "") -> str | None:
    """Where two contents differ first, e.g. `candidates.1.kernel was 5, is 3`; None where they are equal."""
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = [(key, then.get(key), now.get(key)) for key in {**then, **now}]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = [(str(place), *both) for place, both in enumerate(zip(then, now, strict=True))]
    else:
        return None if then == now else f"{where} was {json.dumps(then)}, is {json.dumps(now)}"
    found = (first_difference(a, b, f"{where}.{key}" if where else key) for key, a, b in pairs)
    return next((text for text in found if text is not None), None)


def halve(size: int, stride: int) -> int:
    """Output size of a convolution with padding kernel // 2."""
    return (size + stride - 1) // stride


def load_space(name_or_file: str | Path) -> Space:
    """The shipped space `tf-nas`, `tf-nas-wose` or `mobilenet-v2`, or one from a YAML file.

    Raises:
        UserError: unknown name, missing file, or a file that breaks the schema.
    """
    from tfnas.space.space_file import read_space  # the schema needs pydantic: keep it off the import path

    return read_space(name_or_file)
