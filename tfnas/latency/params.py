"""The section `profile_latency` of params.yaml, and a target's constraint."""

from __future__ import annotations

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


class ProfileLatencyParams(Section):
    table: str | None  # made elsewhere; null: measured on this device
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    backend: str  # a shipped one or an entry point of the group tfnas.latency_backends
    precision: Literal["float32", "bfloat16", "float16"]
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
