"""The profile_latency job: the table, its validation on whole networks, and what they say."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from tfnas.latency.calibration import apply_calibration, fit_calibration
from tfnas.latency.measuring import Measuring
from tfnas.latency.profiler import profile_space
from tfnas.latency.reach import reachable_range_ms
from tfnas.latency.table import LatencyTable
from tfnas.latency.validation import (
    Validated,
    validated,
    validation_metrics,
    validation_networks,
    write_validation,
)
from tfnas.runtime.artifacts import write_json
from tfnas.runtime.devices import find_device
from tfnas.runtime.schema import Params
from tfnas.runtime.stage import Job
from tfnas.space import Space, load_space

JOURNAL = Path("checkpoints/profile_latency.jsonl")  # of the working directory; gone when the table is written

logger = logging.getLogger("tfnas.latency")


def check_profile(params: Params) -> None:
    """The checks that need no measuring.

    Raises:
        UserError: unknown space or absent device.
    """
    load_space(params.space)
    find_device(params.profile_latency.device, source="params.yaml: profile_latency.device:")


def run_profile(job: Job, space: Space) -> None:
    """Write latency_table.json, validation.csv and metrics.json into `job.out`."""
    params = job.params.profile_latency
    measuring = Measuring(params, space=space.name, resolution=job.params.resolution, journal=JOURNAL)
    table, rows = profile(space, measuring, seed=job.params.seed)
    metrics = profile_metrics(table, space, rows)
    logger.info("latency table of %s: %s", table.device, metrics)
    table.save(job.out / "latency_table.json")
    write_validation(rows, job.out / "validation.csv")
    write_json(job.out / "metrics.json", metrics)
    job.run.log_metrics(metrics)
    measuring.discard()


def profile(space: Space, measuring: Measuring, *, seed: int) -> tuple[LatencyTable, list[Validated]]:
    """The table, corrected where params ask for it, and whole networks beside it."""
    params = measuring.params
    networks = validation_networks(space, params.validation_networks, seed)
    table, networks_ms = profile_space(space, measuring, networks=networks, seed=seed)
    calibration = fit_calibration([table.latency_ms(network) for network in networks], networks_ms)
    if calibration is None and params.calibrated:
        logger.warning("%d validation networks allow no correction of the table", len(networks))
    if calibration is not None:
        details = {**table.details, "calibration": calibration.as_details(applied=False)}
        table = replace(table, details=details)
        if params.calibrated:
            table = apply_calibration(table, calibration)
    return table, validated(table, networks, networks_ms)


def profile_metrics(table: LatencyTable, space: Space, rows: list[Validated]) -> dict[str, float]:
    """The content of metrics.json."""
    low_ms, high_ms = reachable_range_ms(space, table)
    calibration = table.details.get("calibration", {})
    measured = ("error_before_percent", "error_after_percent", "scale", "offset_ms")
    return {
        **validation_metrics(rows),
        **{f"calibration_{name}": calibration[name] for name in measured if name in calibration},
        "base_ms": table.base_ms,
        "operations": len(table.curves),
        "knots": sum(len(curve.widths) for curve in table.curves.values()),
        "min_reachable_ms": low_ms,
        "max_reachable_ms": high_ms,
        "seconds": table.details["seconds"],
    }
