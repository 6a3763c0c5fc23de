"""The section `tracking` of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from tfnas.jobs.sections import Count, CountOrZero, Section


class TrackingParams(Section):
    experiment: Annotated[str, Field(max_length=500)]  # as long as MLflow takes
    timeout_seconds: Count
    max_retries: CountOrZero

    @field_validator("experiment")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.strip() or not name.isprintable():
            raise ValueError("experiment must be a name of printable characters, on one line")
        return name
