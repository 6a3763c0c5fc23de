"""The profile_latency job: the table, its validation on whole networks, and what they say."""

from __future__ import annotations

import logging

from tfnas.latency.backends import BackendOptions, device_of, open_backend
from tfnas.latency.profiler import operation_ranges, profile_space
from tfnas.latency.reach import reachable_range_ms
from tfnas.latency.table import LatencyTable
from tfnas.latency.validation import Validated, validate_table, validation_metrics, write_validation
from tfnas.runtime.artifacts import write_json
from tfnas.runtime.devices import find_device
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import Params, ProfileLatencyParams
from tfnas.runtime.stage import Job
from tfnas.space import Space, load_space

logger = logging.getLogger("tfnas.latency")


def check_profile(params: Params) -> None:
    """The checks that need no measuring.

    The device must be here for a table made elsewhere, too: derive measures on it.

    Raises:
        UserError: unknown space or backend, absent device, or more knots than an operation has widths.
    """
    space = load_space(params.space)
    find_device(params.profile_latency.device, source="params.yaml: profile_latency.device:")
    open_backend(
        params.profile_latency.backend,
        BackendOptions.of(params.profile_latency),
        source="params.yaml: profile_latency.backend:",
    )
    if params.profile_latency.table is not None:
        return
    check_widths(
        space, params.profile_latency.widths_per_operation, "params.yaml: profile_latency.widths_per_operation"
    )


def check_widths(space: Space, count: int, source: str) -> None:
    """Raise UserError when no operation of the space has so many widths."""
    most = max(high - low + 1 for low, high in operation_ranges(space, space.resolution).values())
    if count > most:
        raise UserError(f"{source}: {count} is more than any operation of space {space.name} has; write 2 to {most}")


def run_profile(job: Job, space: Space, made_elsewhere: LatencyTable | None = None) -> None:
    """Write latency_table.json, validation.csv and metrics.json into `job.out`.

    Args:
        made_elsewhere: this table is written, and nothing is profiled. It is checked on whole networks where it was
            made on this machine's device in the way that the parameters say; else there is nothing to check it with.
    """
    params = job.params.profile_latency
    table = made_elsewhere or profile_space(space, params, resolution=job.params.resolution, seed=job.params.seed)
    checks = made_elsewhere is None or measured_as(table, params)
    rows = validate_table(table, space, params, seed=job.params.seed) if checks else []
    metrics = profile_metrics(table, space, rows)
    logger.info("latency table of %s: %s", table.device, metrics)
    table.save(job.out / "latency_table.json")
    write_validation(rows, job.out / "validation.csv")
    write_json(job.out / "metrics.json", metrics)
    job.run.log_metrics(metrics)


def measured_as(table: LatencyTable, params: ProfileLatencyParams) -> bool:
    """Whether networks measured here with these parameters are what the table speaks of."""
    backend = open_backend(params.backend, BackendOptions.of(params))
    names = ("backend", "precision", "channels_last", "threads", "num_classes")
    same = all(table.details.get(name) == getattr(params, name) for name in names)
    return same and table.device == device_of(backend, params.device)


def profile_metrics(table: LatencyTable, space: Space, rows: list[Validated]) -> dict[str, float]:
    """The content of metrics.json."""
    low_ms, high_ms = reachable_range_ms(space, table)
    return {
        **validation_metrics(rows),
        "base_ms": table.base_ms,
        "operations": len(table.curves),
        "knots": sum(len(curve.widths) for curve in table.curves.values()),
        "min_reachable_ms": low_ms,
        "max_reachable_ms": high_ms,
        "seconds": table.details.get("seconds", 0.0),
    }
