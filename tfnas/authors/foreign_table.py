"""A latency table that was made elsewhere, for `profile_latency.table`: our JSON or the authors' pickle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tfnas.authors.latency_pickle import read_latency_table
from tfnas.latency import LatencyTable, reachable_range_ms
from tfnas.runtime.artifacts import digest_file
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import Params
from tfnas.space import Space, load_space

SOURCE = "params.yaml: profile_latency.table"


def open_foreign_table(params: Params) -> LatencyTable | None:
    """The table that `profile_latency.table` names, checked; None where it is null.

    Its details say which file it came from, with the SHA-256 of it.

    Raises:
        UserError: missing or damaged, or made for another space, resolution or batch size.
    """
    profile = params.profile_latency
    if profile.table is None:
        return None
    path = Path(profile.table)
    if not path.is_file():
        raise UserError(f"{SOURCE}: {path}: no such file; write the path of a table, or null to measure here")
    space = load_space(params.space)
    table = _read(path, space, params.resolution)
    _check(table, path, space, params)
    return replace(table, details={**table.details, "copied_from": {"file": path.name, "sha256": digest_file(path)}})


def _read(path: Path, space: Space, resolution: int) -> LatencyTable:
    """JSON begins with a brace, a pickle does not. The authors' files do not say what they were made for."""
    with path.open("rb") as file:
        is_json = file.read(64).lstrip()[:1] == b"{"
    return LatencyTable.load(path) if is_json else read_latency_table(path, space=space.name, resolution=resolution)


def _check(table: LatencyTable, path: Path, space: Space, params: Params) -> None:
    pairs = (
        ("space", table.space, space.name),
        ("resolution", table.resolution, params.resolution),
        ("profile_latency.batch_size", table.batch_size, params.profile_latency.batch_size),
    )
    for key, made_for, asked in pairs:
        if made_for != asked:
            raise UserError(
                f"{SOURCE}: {path} was made for {key}: {made_for}, params.yaml has {asked}; change the one or the other"
            )
    table.check_fits(space, params.resolution, source=f"{SOURCE}: {path}")
    reachable_range_ms(space, table)  # every candidate at its ends: the widths must reach so far
