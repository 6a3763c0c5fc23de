"""The section `device` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tfnas.jobs.sections import Count, CountOrZero, Section


class DeviceParams(Section):
    """Where rank_classes, warm_up, search, retrain and transfer compute."""

    name: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    threads: Count  # CPU threads of one job
    precision: Literal["float32", "bfloat16", "float16"]
    workers: CountOrZero  # data loading processes of one job
