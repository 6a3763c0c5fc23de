"""params.yaml as frozen types (every key, its type and range), and loading it with one clear line for a mistake.

The source of each default is noted next to the value in params.yaml and in `presets/`. Below: what else a stage's
results depend on besides other stages' results, the user's own files that parameters name, and code.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, create_model, model_validator

from tfnas.compute.params import DeviceParams
from tfnas.data.params import BuildSubsetParams, PrepareDataParams, RankClassesParams
from tfnas.jobs.artifacts import digest_file, digest_text
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import Count, CountOrZero, Rate, Section, _Loader, explain, read_yaml
from tfnas.latency.params import ConstraintParams, ProfileLatencyParams
from tfnas.report.params import ReportParams
from tfnas.search.params import DeriveParams, SearchParams
from tfnas.stages.registry import INPUTS, NAMED_FILES, STAGES, NamedFile
from tfnas.tracking.params import TrackingParams
from tfnas.train.params import RetrainParams, TransferParams

IGNORED = ("__pycache__",)  # as .dvcignore


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


def path_named(params: Params, named: NamedFile) -> str | None:
    """The path in params.yaml, perhaps with `{target}` in it; None where the value is no path."""
    value: object = params
    for part in named.key.split("."):
        value = getattr(value, part)
    if not isinstance(value, str) or value in named.keywords:
        return None
    is_shipped = named.key == "space" and Path(value).suffix not in (".yaml", ".yml")
    return None if is_shipped else value


def check_named_files(params: Params, source: str | Path) -> None:
    """Both engines watch the folders of `inputs/` and nothing else, so an edit elsewhere would not be noticed.

    Raises:
        UserError: params.yaml names a file that lies elsewhere.
    """
    for named in NAMED_FILES:
        path = path_named(params, named)
        if path is None:
            continue
        folder = f"{INPUTS}/{named.folder}"
        if not Path(os.path.normpath(path)).is_relative_to(folder):
            wanted = f"{named.key}: {folder}/{Path(path).name}"
            there = f"cp {shlex.quote(path)} {folder}/" if Path(path).exists() else "no such file; put it there"
            raise UserError(
                f"{source}: {named.key}: {path!r} lies outside {folder}/, where an edit of it would not be noticed:"
                f" {there} and write {wanted}"
            )


def named_files(params: Params, stage: str, target: str | None = None) -> list[Path]:
    """The user's own files that a stage reads under these parameters, for one target or for all."""
    targets = params.targets if target is None else [target]
    found = (path_named(params, named) for named in NAMED_FILES if stage in named.stages)
    paths = (for_target(path, name) for path in found if path is not None for name in targets)
    return [Path(path) for path in dict.fromkeys(paths)]


def for_target(path: str, target: str) -> str:
    """The target's own file, where `{target}` is in the path."""
    return path.replace("{target}", target)


def files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder in order, compiled ones left out."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not set(IGNORED) & set(path.parts):
            yield path


def digest_code(root: Path, stage: str) -> dict[str, str]:
    """Digest of each file and room of code that a stage depends on, in a checkout of the project."""
    paths = (Path(path) for path in STAGES[stage].code_paths)
    return {path.as_posix(): _digest(root / path) for path in paths if (root / path).exists()}


def _digest(path: Path) -> str:
    """Of a file, or of a room."""
    if path.is_file():
        return digest_file(path)
    return digest_text("\n".join(f"{file.relative_to(path)} {digest_file(file)}" for file in files_in(path)))
