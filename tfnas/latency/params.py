"""The section `profile_latency` of params.yaml, and a target's constraint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tfnas.jobs.sections import Count, CountOrZero, Positive, Section


class ConstraintParams(Section):
    """Either an absolute latency, or a place between the fastest network of the space (0) and the slowest (1)."""

    latency_ms: Positive | None = None
    relative: Annotated[float, Field(ge=0, le=1), AfterValidator(abs)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ConstraintParams:
        if len(self.model_fields_set) != 1 or self.latency_ms == self.relative:  # equal: both are None
            raise ValueError("write exactly one of latency_ms and relative")
        return self


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
