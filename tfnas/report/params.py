"""The section `report` of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tfnas.jobs.sections import Section


class ReportParams(Section):
    title: Annotated[str, Field(pattern=r"^\P{Cc}+$")]  # no control characters
    comparison: str | None  # a comparison.csv; null: none is shown
