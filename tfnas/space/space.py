"""The search space as data: stages, candidate operations, stem and head (Tables 1, 10), read from a YAML file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tfnas.jobs.artifacts import digest_params
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import explain, read_yaml

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
    width_multiple: int = 1  # of the space

    def initial_width(self, in_channels: int) -> int:
        """Expansion channels at the beginning of searching, e * C_in; the nearest that the space has."""
        widths = self.widths(in_channels)
        nearest = round(round(self.expand_ratio * in_channels) / self.width_multiple) * self.width_multiple
        return min(max(nearest, widths[0]), widths[-1])

    def width_range(self, in_channels: int) -> tuple[int, int]:
        """Smallest and largest number of expansion channels."""
        widths = self.widths(in_channels)
        return widths[0], widths[-1]

    def widths(self, in_channels: int) -> range:
        """All numbers of expansion channels: multiples of `width_multiple` within the range."""
        low, high = (round(ratio * in_channels) for ratio in self.expand_range)
        return range(-(-low // self.width_multiple) * self.width_multiple, high + 1, self.width_multiple)

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
    def width_multiple(self) -> int:
        """All searched widths are multiples of it."""
        return self.candidates[0].width_multiple

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
        content = dict(json.loads(json.dumps(asdict(self))))
        for candidate in content["candidates"]:
            if candidate["width_multiple"] == 1:  # as before spaces had multiples: their digests stay
                del candidate["width_multiple"]
        return content

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
    """A shipped space (`tf-nas`, `tf-nas-wose`, `tf-nas-small-images`, `tf-nas-tiny`, `mobilenet-v2`) or a file's.

    `tf-nas@8` is `tf-nas` with widths at multiples of 8 only; in a file, the key `width_multiple` says so. The paper's
    widths are any whole numbers. Many devices run odd widths slowly (ONNX Runtime up to ten times), and a target
    above all even ones would be filled by them.

    Raises:
        UserError: unknown name, missing file, or a file that breaks the schema.
    """
    return read_space(name_or_file)


SHIPPED_FOLDER = Path(__file__).parent / "spaces"

Channels = Annotated[int, Field(ge=1)]
Kernel = Literal[1, 3, 5, 7]
Stride = Literal[1, 2]
Activation = Literal["relu", "relu6", "swish"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Stem(_Model):
    kernel: Kernel
    in_channels: Channels
    out_channels: Channels
    stride: Stride
    act: Activation


class _Fixed(_Model):
    kernel: Kernel
    expand_ratio: Annotated[float, Field(gt=0)]
    se_ratio: Annotated[float, Field(ge=0)]


class _Stage(_Model):
    """A residual is no key: a layer has one where its stride is 1 and its channels stay the same."""

    stage: Annotated[int, Field(ge=2)]
    in_channels: Channels
    out_channels: Channels
    stride: Stride
    depth: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    act: Activation
    fixed: _Fixed | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_no_residual(cls, stage: object) -> object:
        if isinstance(stage, dict) and "residual" in stage:
            raise ValueError("residual is no key: a layer has one where its stride is 1 and its channels stay the same")
        return stage

    @model_validator(mode="after")
    def _check_depth(self) -> _Stage:
        if self.depth[0] > self.depth[1]:
            raise ValueError(f"depth {list(self.depth)} is empty; write [fewest, most] layers")
        if self.fixed is not None and self.depth[0] != self.depth[1]:
            raise ValueError(
                f"depth {list(self.depth)}: a fixed stage has one depth; write [{self.depth[1]}, {self.depth[1]}]"
            )
        if self.depth[0] != 1 and self.fixed is None:
            raise ValueError(f"depth {list(self.depth)}: sink-connecting starts at 1 layer; write [1, {self.depth[1]}]")
        return self


class _Candidate(_Model):
    name: str
    kernel: Kernel
    expand_ratio: Annotated[float, Field(gt=0)]
    expand_range: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    se_ratio: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _check_range(self) -> _Candidate:
        low, high = self.expand_range
        if low >= high:
            raise ValueError(f"expand_range {list(self.expand_range)} is empty; write [smallest, largest] ratio")
        if not low <= self.expand_ratio <= high:
            raise ValueError(f"expand_ratio {self.expand_ratio} lies outside expand_range {list(self.expand_range)}")
        return self


class _Head(_Model):
    out_channels: Channels
    act: Activation


class _Space(_Model):
    name: str
    resolution: Annotated[int, Field(ge=8)]
    width_multiple: Annotated[int, Field(ge=1)] = 1
    stem: _Stem
    stages: Annotated[list[_Stage], Field(min_length=1)]
    candidates: Annotated[list[_Candidate], Field(min_length=1)]
    head: _Head

    @model_validator(mode="after")
    def _check_flow(self) -> _Space:
        channels, number = self.stem.out_channels, 1
        for stage in self.stages:
            if stage.stage <= number:
                raise ValueError(f"stage {stage.stage} follows stage {number}; number the stages upwards")
            if stage.in_channels != channels:
                raise ValueError(
                    f"stage {stage.stage}: in_channels is {stage.in_channels}, the stage before gives {channels}"
                )
            channels, number = stage.out_channels, stage.stage
        if all(stage.fixed for stage in self.stages):
            raise ValueError("every stage is fixed: nothing to search; leave `fixed` out of at least one stage")
        return self

    @model_validator(mode="after")
    def _check_candidates(self) -> _Space:
        names = [candidate.name for candidate in self.candidates]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"candidates: the name {twice!r} is used twice; names must differ")
        for stage in self.stages:
            for candidate in self.candidates if stage.fixed is None else ():
                _check_widths(candidate, stage, self.width_multiple)
        return self


def _check_widths(model: _Candidate, stage: _Stage, width_multiple: int) -> None:
    """Every layer of the stage has a choice of widths, and a squeeze-and-excitation that exists."""
    candidate = Candidate(**model.model_dump(), width_multiple=width_multiple)
    for in_channels in (stage.in_channels, stage.out_channels):  # the first layer, the others
        low, high = (round(ratio * in_channels) for ratio in model.expand_range)
        if not 1 <= low < high:
            raise ValueError(
                f"candidate {model.name}: expand_range {list(model.expand_range)} gives widths {low} to {high} at"
                f" {in_channels} channels (stage {stage.stage}), an empty range; widen expand_range"
            )
        if len(candidate.widths(in_channels)) < 2:
            raise ValueError(
                f"candidate {model.name}: fewer than two multiples of {width_multiple} are among its widths, {low} to"
                f" {high} at {in_channels} channels (stage {stage.stage}); choose a smaller width_multiple"
            )
        if model.se_ratio > 0 and candidate.se_channels(in_channels) == 0:
            raise ValueError(
                f"candidate {model.name}: se_ratio {model.se_ratio} gives 0 channels at {in_channels} channels"
                f" (stage {stage.stage}); write 0 for no squeeze-and-excitation, or more"
            )


def shipped_spaces() -> list[str]:
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.yaml"))


def read_space(name_or_file: str | Path) -> Space:
    """See `tfnas.space.load_space`."""
    path, given = Path(name_or_file), dict[str, Any]()
    if path.suffix not in (".yaml", ".yml"):
        path, given = _shipped(str(name_or_file))
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; `space` takes one of {', '.join(shipped_spaces())} or a file")
    content = read_yaml(path)
    try:
        return _to_space(_Space.model_validate({**content, **given} if given else content))
    except ValidationError as error:
        raise UserError(explain(error, _Space, source=str(name_or_file) if given else str(path))) from None


def _shipped(given: str) -> tuple[Path, dict[str, Any]]:
    """The file of NAME or NAME@MULTIPLE, and the keys that the latter sets."""
    name, at, multiple = given.partition("@")
    path = SHIPPED_FOLDER / f"{name}.yaml"
    if not path.exists():
        known = shipped_spaces()
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UserError(
            f"space: unknown name {given!r}; did you mean {nearest!r}? Known: {', '.join(known)}, or a .yaml file"
        )
    if not at:
        return path, {}
    if not multiple.isdecimal() or int(multiple) < 1:
        raise UserError(f"space: {given!r} has no multiple of channels after @; write {name}@8, for example")
    return path, {"name": f"{name}@{int(multiple)}", "width_multiple": int(multiple)}


def _to_space(model: _Space) -> Space:
    return Space(
        name=model.name,
        resolution=model.resolution,
        stem=Stem(**model.stem.model_dump()),
        stages=tuple(_to_stage(stage) for stage in model.stages),
        candidates=tuple(
            Candidate(**candidate.model_dump(), width_multiple=model.width_multiple) for candidate in model.candidates
        ),
        head=Head(**model.head.model_dump()),
    )


def _to_stage(stage: _Stage) -> StageSpec:
    return StageSpec(
        stage=stage.stage,
        in_channels=stage.in_channels,
        out_channels=stage.out_channels,
        stride=stage.stride,
        min_depth=stage.depth[0],
        max_depth=stage.depth[1],
        act=stage.act,
        fixed=FixedOperation(**stage.fixed.model_dump()) if stage.fixed else None,
    )
