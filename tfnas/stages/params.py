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

from tfnas.claims.params import ClaimsParams
from tfnas.compute.params import DeviceParams
from tfnas.data.params import BuildSubsetParams, PrepareDataParams, RankClassesParams
from tfnas.jobs.artifacts import digest_file, digest_text
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import Count, CountOrZero, Rate, Section, _Loader, explain, read_yaml
from tfnas.latency.params import BaselinesParams, ConstraintParams, ProfileLatencyParams
from tfnas.report.params import ReportParams
from tfnas.search.params import DeriveParams, SearchParams
from tfnas.space.given import given_network, is_file
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
    baselines: BaselinesParams
    report: ReportParams
    claims: ClaimsParams | None = None  # of `snakemake claims` alone; presets/claims.yaml

    @model_validator(mode="after")
    def _transfer_targets_exist(self) -> Params:
        for name in self.transfer.targets:
            if name not in self.targets:
                raise ValueError(
                    f"transfer.targets names {name!r}, which is not in targets ({', '.join(self.targets)})"
                )
        return self

    @model_validator(mode="after")
    def _baselines_have_a_limit(self) -> Params:
        for name in self.baselines.targets:
            if name not in self.targets:
                raise ValueError(
                    f"baselines.targets names {name!r}, which is not in targets ({', '.join(self.targets)})"
                )
            if self.targets[name].constraint.is_given:
                raise ValueError(
                    f"baselines.targets names {name!r}, whose network is given: there is no latency to bring others to;"
                    " leave it out"
                )
        return self

    @model_validator(mode="after")
    def _searches_where_asked(self) -> Params:
        searched = [name for name, target in self.targets.items() if not target.constraint.is_given]
        if self.search.epochs == 0 and searched:
            raise ValueError(
                f"search.epochs: 0 searches nothing, and target {searched[0]} asks for a latency; write 1 or more, or"
                f" targets.{searched[0]}.constraint: {{architecture: ...}}"
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
    """The values that `stage` depends on, as plain data, one entry per key of the registry.

    A job that searches nothing depends on its target's constraint alone, although dvc.yaml lists all keys for it.
    """
    plain = params.model_dump(mode="json", by_alias=True)
    keys = [key.format(target=target) for key in STAGES[stage].keys]
    if searches_nothing(params, stage, target):
        keys = [key for key in keys if key.startswith("targets.")]
    return {key: _value_at(plain, key) for key in keys}


def searches_nothing(params: Params, stage: str, target: str | None) -> bool:
    """Whether a job is the search of a target whose network is given; such a job reads nothing."""
    return stage == "search" and target in params.targets and params.targets[target].constraint.is_given


def _value_at(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain[part]
    return plain


def paths_named(params: Params, named: NamedFile, target: str | None = None) -> dict[str, str]:
    """The paths in params.yaml by their keys, perhaps with `{target}` in them; values that are none left out.

    Keys are those of params.yaml, e.g. `targets.A.constraint.architecture`.

    Args:
        target: the only one whose keys are looked at; None: all targets.
    """
    targets = list(params.targets) if target is None else [target]
    keys = [named.key.replace("*", name) for name in targets] if "*" in named.key else [named.key]
    found = {key: _value_of(params, key) for key in keys}
    return {key: value for key, value in found.items() if isinstance(value, str) and _is_path(named, value)}


def _value_of(params: Params, key: str) -> object:
    value: object = params
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _is_path(named: NamedFile, value: str) -> bool:
    if named.folder == "architectures":
        return is_file(value)
    if named.key == "space":
        return Path(value).suffix in (".yaml", ".yml")
    return value not in named.keywords


def check_named_files(params: Params, source: str | Path) -> None:
    """Both engines watch the folders of `inputs/` and nothing else, so an edit elsewhere would not be noticed.

    Raises:
        UserError: params.yaml names a file that lies elsewhere.
    """
    for key, folder, path in _all_named(params):
        if not Path(os.path.normpath(path)).is_relative_to(folder):
            wanted = f"{key}: {folder}/{Path(path).name}"
            there = f"cp {shlex.quote(path)} {folder}/" if Path(path).exists() else "no such file; put it there"
            raise UserError(
                f"{source}: {key}: {path!r} lies outside {folder}/, where an edit of it would not be noticed:"
                f" {there} and write {wanted}"
            )


def _all_named(params: Params) -> Iterator[tuple[str, str, str]]:
    """Key, the folder that the file must be in, and path of every file that params.yaml names."""
    for named in NAMED_FILES:
        for key, path in paths_named(params, named).items():
            yield key, f"{INPUTS}/{named.folder}", path


def check_given_networks(params: Params) -> None:
    """Every network that a target names can be built, so that a mistake is told before any work.

    Raises:
        UserError: as `given_network`.
    """
    for name, target in params.targets.items():
        if target.constraint.architecture is not None:
            given_network(target.constraint.architecture, key=f"targets.{name}.constraint.architecture")


def spared_supernet(params: Params) -> str | None:
    """A hint where a supernet is trained that no target needs; None otherwise."""
    if params.search.epochs == 0 or not all(target.constraint.is_given for target in params.targets.values()):
        return None
    return "every target names its network, so search.epochs: 0 would spare the training of a supernet"


def named_files(params: Params, stage: str, target: str | None = None) -> list[Path]:
    """The user's own files that a stage reads under these parameters, for one target or for all."""
    targets = params.targets if target is None else [target]
    found = (paths_named(params, named, target) for named in NAMED_FILES if stage in named.stages)
    paths = (for_target(path, name) for named in found for path in named.values() for name in targets)
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
    return {path.as_posix(): digest_path(root / path) for path in paths if (root / path).exists()}


def digest_path(path: Path) -> str:
    """Digest of a file, or of the names and contents of all files in a room."""
    if path.is_file():
        return digest_file(path)
    return digest_text("\n".join(f"{file.relative_to(path)} {digest_file(file)}" for file in files_in(path)))
