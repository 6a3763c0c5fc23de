"""The sections `profile_latency` and `baselines` of params.yaml, and a target's constraint."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from tfnas.jobs.sections import Count, CountOrZero, Positive, Section
from tfnas.space import zoo
from tfnas.space.given import is_file


class ConstraintParams(Section):
    """What a target asks for: a latency, or a given network, which nothing searches for.

    The latency is absolute, or a place between the fastest network of the space (0) and the slowest (1). The network is
    a published one by its name, or the user's own file in `inputs/architectures/`.
    """

    latency_ms: Positive | None = None
    relative: Annotated[float, Field(ge=0, le=1), AfterValidator(abs)] | None = None
    architecture: str | None = None

    @field_validator("architecture")
    @classmethod
    def _published_or_file(cls, value: str | None) -> str | None:
        if value is not None and not is_file(value) and value not in zoo.names():
            raise ValueError(
                f"unknown network; did you mean {zoo.nearest(value)}? Write a name of `tfnas zoo list`, or"
                " inputs/architectures/FILE.json"
            )
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> ConstraintParams:
        values = (self.latency_ms, self.relative, self.architecture)
        if len(self.model_fields_set) != 1 or all(value is None for value in values):
            raise ValueError("write exactly one of latency_ms, relative and architecture")
        return self

    @property
    def is_given(self) -> bool:
        """Whether the target names its network, so that none is searched for."""
        return self.architecture is not None


RANDOM, ANY, KNOWN = "random", "any", "known"  # kinds of networks that a search has to beat
TORCHVISION_NETWORKS = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mnasnet",
    "efficientnet_b0",
    "shufflenet_v2",
)


def known_names() -> list[str]:
    """The networks that `tfnas.latency.known_networks.build_known` builds: torchvision's and the paper's."""
    return [*TORCHVISION_NETWORKS, *zoo.names()]


def baseline_kind(name: str) -> str:
    """Of an entry of `baselines.networks`: `random_1`, `any_1` or a known network's name.

    Raises:
        ValueError: it is none of them.
    """
    match = re.fullmatch(rf"({RANDOM}|{ANY})_[1-9]\d*", name)
    if match is not None:
        return match[1]
    if name not in known_names():
        raise ValueError(
            f"{name!r} is neither random_N nor any_N (N from 1) nor a known network; these are"
            f" {', '.join(known_names())}"
        )
    return KNOWN


class BaselinesParams(Section):
    """What a search has to beat: networks trained as the found one, for these targets."""

    targets: list[str]
    networks: list[str]  # random_N: of the target's latency; any_N: of any size; else a known network at the latency

    @field_validator("networks")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            baseline_kind(name)
        return names

    @field_validator("targets", "networks")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
        if twice is not None:
            raise ValueError(f"names {twice!r} twice; write it once")
        return names


class ProfileLatencyParams(Section):
    table: str | None  # made elsewhere; null: measured on this device
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    backend: str  # a shipped one or an entry point of the group tfnas.latency_backends
    precision: Literal["float32", "bfloat16", "float16", "int8"]
    channels_last: bool
    threads: Count
    batch_size: Count
    num_classes: Count
    minutes: Positive  # budget for measuring
    tolerance: Annotated[float, Field(gt=0, lt=1)]  # relative; of each knot, and of the lines between knots
    warmup_runs: CountOrZero
    repeats: Count  # runs in a row each time a point is visited
    validation_networks: CountOrZero
    calibrated: bool  # correct the table by the validation networks
    on_busy: Literal["warn", "refuse"]  # when other programs load the machine
