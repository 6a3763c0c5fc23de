"""What a stage's results depend on besides other stages' results, and whether a job's own record agrees with it.

Neither engine's word is enough: `snakemake --touch` and `dvc commit -f` accept any file as the outcome of today's
parameters and code. Neither of them changes what a job wrote into its provenance.json when it ran.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfnas.jobs.artifacts import PROVENANCE, digest_file, read_json, seal
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import flatten
from tfnas.stages.params import (
    Params,
    digest_code,
    files_in,
    load_params,
    paths_named,
    searches_nothing,
    stage_params,
)
from tfnas.stages.registry import INPUTS, LIBRARY, NAMED_FILES, STAGES


def code_files(root: Path, stage: str) -> list[str]:
    """Every file of the rooms that a stage depends on, relative to the working directory.

    dvc.yaml names the same rooms as folders.
    """
    paths = [root / path for path in STAGES[stage].code_paths if path != STAGES[stage].script]
    return [os.path.relpath(file) for path in paths for file in ([path] if path.is_file() else files_in(path))]


def user_files(stage: str, params: Params, target: str | None = None) -> list[str]:
    """Every file of the folders of `inputs/` that a stage's job depends on; dvc.yaml names the same folders.

    Of a folder with one file per target, only the target's own: dvc.yaml cannot say so.
    """
    found = list[str]()
    for named in NAMED_FILES:
        if stage not in named.stages:
            continue
        if named.per_target:
            found += map(os.path.normpath, paths_named(params, named, target).values())
        else:
            found += [path.as_posix() for path in files_in(Path(INPUTS) / named.folder)]
    return found


def is_finer(params: Params, stage: str, target: str | None) -> bool:
    """Whether Snakemake knows better than dvc.yaml what a job depends on.

    DVC re-runs such a job without need, in seconds, and stops there, since its outcome is the same.
    """
    named = (named for named in NAMED_FILES if named.per_target and stage in named.stages)
    return searches_nothing(params, stage, target) or any(paths_named(params, one) for one in named)


def values_as_text(params: Params, stage: str, target: str | None) -> str:
    """The values that a stage depends on; Snakemake re-runs a job when this text changes.

    They are the validated values, so that two spellings of a number (`3` and `3.0`) are equal, as they are for DVC.
    """
    return json.dumps(stage_params(params, stage, target), sort_keys=True)


def disagreements(folder: Path, outputs: Iterable[str], *, thorough: Iterable[str] = ()) -> dict[str, str]:
    """Why results do not match today's parameters, code and inputs, by job, e.g. `search/A`.

    A result that another job has read is compared by the digests that both recorded, without reading it.

    Args:
        folder: of the project.
        outputs: declared files; a job is found by its provenance.json among them.
        thorough: jobs whose outputs are also read and compared with the recorded digests.
    """
    folders = [Path(path).parent for path in outputs if Path(path).name == PROVENANCE]
    records = {place: _read(folder / place / PROVENANCE) for place in folders if (folder / place / PROVENANCE).exists()}
    known: dict[str, str] = {}
    for record in records.values():
        known |= record.get("outputs", {}) if isinstance(record, Mapping) else {}
    params, reasons, names = load_params(folder / "params.yaml"), {}, set(thorough)
    for place, record in records.items():
        job = "/".join(place.parts[1:])
        found = record if isinstance(record, str) else _disagreement(record, place, folder, params, known)
        if found is None and job in names and not isinstance(record, str):
            found = _damaged(record["outputs"], folder)
        if found is not None:
            reasons[job] = found
    return reasons


def job_of(outputs: Iterable[str]) -> str:
    """The name of the job that writes these files, as `disagreements` gives it."""
    return next(("/".join(Path(path).parts[1:-1]) for path in outputs if Path(path).name == PROVENANCE), "")


def _read(path: Path) -> Mapping[str, Any] | str:
    """A record, or a message about what is wrong with it."""
    try:
        record = read_json(path, kind="provenance", version=1)
    except UserError:
        return f"its {PROVENANCE} is damaged"
    if "code" not in record:
        return f"its {PROVENANCE} says nothing of the code that ran (an older tfnas wrote it)"
    return record if record.get("seal") == seal(record) else f"its {PROVENANCE} was edited by hand"


def _disagreement(
    record: Mapping[str, Any], place: Path, folder: Path, params: Params, known: Mapping[str, str]
) -> str | None:
    """The first thing that has changed since the job ran."""
    stage, target = place.parts[1], place.parts[2] if len(place.parts) > 2 else None
    if record["stage"] != stage or any(Path(path).parent != place for path in record["outputs"]):
        return f"its {PROVENANCE} is another job's"
    try:
        now = flatten(stage_params(params, stage, target))
    except KeyError:
        return f"params.yaml has no target {target}"
    then = flatten(record["params"])
    for key in {**then, **now}:
        if then.get(key) != now.get(key):
            return f"{key} is {json.dumps(now.get(key))} in params.yaml, the job ran with {json.dumps(then.get(key))}"
    code = digest_code(folder, stage) if (folder / LIBRARY).is_dir() else record["code"]  # results without a checkout
    for part in {**record["code"], **code}:
        if record["code"].get(part) != code.get(part):
            return f"{part} has changed since the job ran"
    for path, digest in record["inputs"].items():
        if _digest_now(path, folder, known) != digest:
            return f"{path} is not what the job read"
    return None


def _digest_now(path: str, folder: Path, known: Mapping[str, str]) -> str | None:
    if path in known:
        return known[path]
    return digest_file(folder / path) if (folder / path).exists() else None


def _damaged(outputs: Mapping[str, str], folder: Path) -> str | None:
    for path, digest in outputs.items():
        if not (folder / path).exists() or digest_file(folder / path) != digest:
            return f"{path} is not what the job wrote"
    return None
