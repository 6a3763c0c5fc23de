"""The shipped tables: found by name, listed with where they come from, and packed from a finished profile.

A shipped table is a table's JSON, rounded, with two more details: `commit`, of the code that measured it, and
`whole_networks`, its errors on networks that its correction has not seen.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.jobs.artifacts import read_json, write_text
from tfnas.jobs.errors import UserError
from tfnas.latency import LatencyTable, reachable_range_ms
from tfnas.latency.validation import Validated, fit_calibration, read_validation, validation_metrics
from tfnas.space import Space

FOLDER = Path(__file__).parent / "data"
INPUTS = Path("inputs/tables")  # where `profile_latency.table` finds it
DIGITS = 5  # of a latency; a measurement is good to two or three
COMMIT, ERRORS = "commit", "whole_networks"  # of the details
NOT_IDLE = 0.98  # of the time; a profile that computed less was disturbed, and is not an example


@dataclass(frozen=True)
class Shipped:
    """Where a table comes from, and how good it is."""

    name: str
    device: str
    backend: str
    precision: str
    threads: int
    batch_size: int
    resolution: int
    space: str
    measured_on: str  # date
    version: str  # of tfnas
    commit: str
    error_percent: float | None  # mean absolute, on whole networks that its correction has not seen
    within_percent: dict[int, float]  # limit to share of networks; empty where it is not known


def names() -> list[str]:
    """Names of the shipped tables, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def open_table(name_or_file: str | Path) -> LatencyTable:
    """The table in a file, or the shipped one of this name; a file comes first.

    Raises:
        UserError: a damaged or missing file, or an unknown name.
    """
    text = str(name_or_file)
    if text in names() and not Path(text).exists():
        return LatencyTable.load(FOLDER / f"{text}.json")
    if text.endswith(".json") or Path(text).exists():
        return LatencyTable.load(text)
    close = difflib.get_close_matches(text, names(), n=1, cutoff=0)
    raise UserError(f"{text}: neither a file nor a shipped table; did you mean {close[0]}? `tfnas table list` has all")


def describe(name: str) -> Shipped:
    """Where a shipped table comes from.

    Raises:
        UserError: unknown name.
    """
    table = open_table(name)
    details, errors = table.details, table.details.get(ERRORS, {})
    within = {limit: errors.get(f"within_{limit}_percent") for limit in (5, 10)}
    return Shipped(
        name=name,
        device=table.device,
        backend=details["backend"],
        precision=details["precision"],
        threads=details["threads"],
        batch_size=table.batch_size,
        resolution=table.resolution,
        space=table.space,
        measured_on=details["measured_at"][:10],
        version=details["packages"]["tfnas"],
        commit=details.get(COMMIT, "unknown"),
        error_percent=errors.get("mean_absolute_percentage_error"),
        within_percent={limit: rate for limit, rate in within.items() if rate is not None},
    )


def copy(name: str, path: Path) -> None:
    """Write a shipped table to a file, for instance where `profile_latency.table` finds it.

    Raises:
        UserError: unknown name.
    """
    open_table(name).save(path)


def pack(profile: Path, space: Space, *, commit: str) -> dict[str, Any]:
    """A finished profile as a shipped table's JSON.

    Args:
        profile: folder with latency_table.json and validation.csv, as the stage profile_latency leaves it. Without the
            latter, only the mean error is known, from the table's own record of its correction.
        commit: of the code that measured it.

    Raises:
        UserError: a file is missing or damaged, or the machine was busy.
    """
    table = LatencyTable.load(profile / "latency_table.json")
    share = table.details["cpu_share"]
    if not share >= NOT_IDLE:
        raise UserError(
            f"{profile}: its machine was busy: it computed {100 * share:.0f} % of the time; measure it anew"
        )
    payload = read_json(profile / "latency_table.json")
    errors = _recorded_error(table)
    if (profile / "validation.csv").exists():
        errors = validation_metrics(unseen_rows(table, space, read_validation(profile / "validation.csv")))
    payload["details"] |= {COMMIT: commit, ERRORS: errors}
    payload["details"].pop("copied_from", None)
    rounded: dict[str, Any] = _rounded(payload)
    return rounded


def _recorded_error(table: LatencyTable) -> dict[str, float]:
    calibration = table.details.get("calibration")
    if calibration is None:
        return {}
    kind = "after" if calibration["applied"] else "before"
    return {"mean_absolute_percentage_error": calibration[f"error_{kind}_percent"]}


def unseen_rows(table: LatencyTable, space: Space, rows: list[Validated]) -> list[Validated]:
    """Rows in which every random network is judged by the correction fitted to the others.

    Profiles of before the hit rates did not keep those latencies. They follow from the recorded correction, which
    leads back to the plain sums.
    """
    calibration = table.details.get("calibration", {})
    if not calibration.get("applied"):
        return rows
    scale, offset_ms = calibration["scale"], calibration["offset_ms"]
    random = [row for row in rows if not row.is_published]
    sums_ms = [(row.table_ms - offset_ms) / scale for row in random]
    fastest_ms = (reachable_range_ms(space, table)[0] - offset_ms) / scale
    found = fit_calibration(sums_ms, [row.measured_ms for row in random], fastest_ms=fastest_ms)
    assert found is not None
    judged = [row._replace(unseen_ms=unseen) for row, unseen in zip(random, found.unseen_ms, strict=True)]
    return [*judged, *(row for row in rows if row.is_published)]


def write_packed(payload: dict[str, Any], path: Path) -> None:
    """One operation per line: small, and a difference of two versions can be read."""
    operations = ",\n".join(json.dumps(row, separators=(",", ":")) for row in payload["operations"])
    head = json.dumps({key: value for key, value in payload.items() if key != "operations"}, separators=(",", ":"))
    write_text(path, f'{head[:-1]},\n"operations":[\n{operations}\n]}}\n')


def _rounded(value: Any) -> Any:
    """All floats to `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
