"""params.yaml as frozen types (every key, its type and range), and loading it with one clear line for a mistake.

The source of each default is noted next to the value in params.yaml and in `presets/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, create_model, model_validator

from tfnas.compute.params import DeviceParams
from tfnas.data.params import BuildSubsetParams, PrepareDataParams, RankClassesParams
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import Count, CountOrZero, Rate, Section, explain
from tfnas.jobs.yaml_files import _Loader, read_yaml
from tfnas.latency.params import ConstraintParams, ProfileLatencyParams
from tfnas.report.params import ReportParams
from tfnas.search.params import DeriveParams, SearchParams
from tfnas.stages.registry import STAGES
from tfnas.tracking.params import TrackingParams
from tfnas.train.params import RetrainParams, TransferParams


class JobResources(Section):
    """What a job of one stage asks of a cluster; a GPU is asked for where its device is one."""

    mem_mb: Count
    minutes: Count  # the scheduler stops a job that takes longer; the next try resumes from its checkpoint


DEFAULT_RESOURCES = JobResources(mem_mb=4000, minutes=60)  # of a stage that `resources` does not name

if TYPE_CHECKING:

    class ResourcesParams(Section):
        """What the jobs of each stage ask for, by the stage's name."""

        def __getattr__(self, stage: str) -> JobResources: ...

else:
    ResourcesParams = create_model(
        "ResourcesParams", __base__=Section, **dict.fromkeys(STAGES, (JobResources, DEFAULT_RESOURCES))
    )


class TargetParams(Section):
    constraint: ConstraintParams
    dropout: Rate


class Params(Section):
    seed: CountOrZero
    space: str
    resolution: Annotated[int, Field(ge=8)]
    device: DeviceParams
    tracking: TrackingParams
    resources: ResourcesParams
    targets: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], TargetParams], Field(min_length=1)]
    prepare_data: PrepareDataParams
    rank_classes: RankClassesParams
    build_subset: BuildSubsetParams
    profile_latency: ProfileLatencyParams
    search: SearchParams
    derive: DeriveParams
    retrain: RetrainParams
    transfer: TransferParams
    report: ReportParams

    @model_validator(mode="after")
    def _transfer_targets_exist(self) -> Params:
        for name in self.transfer.targets:
            if name not in self.targets:
                raise ValueError(
                    f"transfer.targets names {name!r}, which is not in targets ({', '.join(self.targets)})"
                )
        return self


def load_params(path: str | Path) -> Params:
    """The parameters in a YAML file.

    Raises:
        UserError: missing file, invalid YAML, unknown or duplicate key, wrong type or range.
    """
    raw = read_yaml(path)
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise UserError(explain(error, Params, source=str(path))) from None


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"-?\d+e[-+]\d\d+$"), list("-0123456789"))


def stage_params(params: Params, stage: str, target: str | None = None) -> dict[str, Any]:
    """The values that `stage` depends on, as plain data, one entry per key of the registry."""
    plain = params.model_dump(mode="json", by_alias=True)
    keys = (key.format(target=target) for key in STAGES[stage].keys)
    return {key: _value_at(plain, key) for key in keys}


def _value_at(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain[part]
    return plain
