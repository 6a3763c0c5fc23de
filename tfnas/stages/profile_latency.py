"""Stage profile_latency: the latency table and its validation on whole networks (Sec. 3.1, Appendices B, G)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tfnas.authors.latency_tables import open_external_table
from tfnas.compute.devices import find_device
from tfnas.jobs.artifacts import write_json
from tfnas.latency.adaptation import FEWEST_NETWORKS, adapt_table, spread_by_latency
from tfnas.latency.backends import BackendOptions, device_of, open_backend
from tfnas.latency.measuring import Measuring
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.profiler import NETWORK_VISITS, profile_space, width_advice
from tfnas.latency.table import LatencyTable, reachable_range_ms
from tfnas.latency.validation import (
    FEWEST_FOR_FIT,
    Validated,
    apply_calibration,
    fit_calibration,
    published_members,
    time_networks,
    validated,
    validation_metrics,
    validation_networks,
    write_validation,
)
from tfnas.space import Architecture, Space, load_space
from tfnas.stages.job import Job

JOURNAL = Path("checkpoints/profile_latency.jsonl")  # of the working directory; gone when the table is written

logger = logging.getLogger("tfnas.latency")


def check(job: Job) -> tuple[Space, LatencyTable | None]:
    """The checks that need no measuring; the space, and the table that `profile_latency.table` names, if it does.

    The device must be present even for a table made elsewhere: derive measures on it.

    Raises:
        UserError: unknown space or backend, absent device, or a table that does not fit.
    """
    params = job.params
    space = load_space(params.space)
    find_device(params.profile_latency.device, source="params.yaml: profile_latency.device:")
    open_backend(
        params.profile_latency.backend,
        BackendOptions.of(params.profile_latency),
        source="params.yaml: profile_latency.backend:",
    )
    return space, open_external_table(params.profile_latency, space, params.resolution)


def run(job: Job, checked: tuple[Space, LatencyTable | None]) -> None:
    """Write latency_table.json, validation.csv and metrics.json into `job.out`.

    An external table is written unchanged, and nothing is profiled. It is validated on whole networks where it was made
    on this machine's device with these parameters; elsewhere there is nothing to validate it with.
    """
    (space, external), params = checked, job.params.profile_latency
    measuring = None
    if external is None:
        measuring = Measuring(params, space=space.digest, resolution=job.params.resolution, journal=JOURNAL)
        table, rows = profile(space, measuring, seed=job.params.seed)
    else:
        table, rows = external, _validate(external, space, params, seed=job.params.seed)
    metrics = profile_metrics(table, space, rows)
    logger.info("latency table of %s: %s", table.device, metrics)
    if (advice := width_advice(space, table)) is not None:
        logger.warning("%s", advice)
    table.save(job.out / "latency_table.json")
    write_validation(rows, job.out / "validation.csv")
    write_json(job.out / "metrics.json", metrics)
    job.run.log_metrics(metrics)
    if measuring is not None:
        job.at_end.append(measuring.discard)


def profile(space: Space, measuring: Measuring, *, seed: int) -> tuple[LatencyTable, list[Validated]]:
    """The table, corrected where params ask for it and it helps, and whole networks next to it."""
    networks, fitted = _whole_networks(space, measuring.params, seed=seed)
    table, networks_ms = profile_space(space, measuring, networks=networks, seed=seed)
    return calibrated(table, space, networks, networks_ms, fitted=fitted, applied=measuring.params.calibrated)


def adapt(
    source: LatencyTable, space: Space, measuring: Measuring, *, samples: int | None = None, seed: int
) -> tuple[LatencyTable, list[Validated]]:
    """Another device's table, adapted to this one by a few samples; and the whole networks among them next to it.

    Args:
        samples: at most; None: as many as the budget of `measuring` allows.
    """
    params = measuring.params
    networks = spread_by_latency(validation_networks(space, params.validation_networks, seed), source)
    table, networks_ms = adapt_table(source, space, measuring, networks=networks, samples=samples, seed=seed)
    count = len(networks_ms)
    return calibrated(
        table,
        space,
        networks[:count],
        networks_ms,
        fitted=count,
        applied=params.calibrated,
        fewest=FEWEST_NETWORKS,
    )


def _whole_networks(space: Space, params: ProfileLatencyParams, *, seed: int) -> tuple[list[Architecture], int]:
    """Random networks followed by the published ones of the space, and the number of the former."""
    random = validation_networks(space, params.validation_networks, seed)
    return [*random, *(published_members(space) if random else ())], len(random)


def calibrated(
    table: LatencyTable,
    space: Space,
    networks: Sequence[Architecture],
    networks_ms: Sequence[float],
    *,
    fitted: int,
    applied: bool,
    fewest: int = FEWEST_FOR_FIT,
) -> tuple[LatencyTable, list[Validated]]:
    """The table, corrected if `applied` and the correction helps, and all networks next to it.

    The table's details record the benefit of the correction.

    Args:
        fitted: the number of networks, the first ones, that the correction is fitted to.
        fewest: networks to fit it to.
    """
    sums_ms = [table.latency_ms(network) for network in networks[:fitted]]
    fastest_ms = reachable_range_ms(space, table)[0]
    calibration = fit_calibration(sums_ms, networks_ms[:fitted], fastest_ms=fastest_ms, fewest=fewest)
    if calibration is None:
        if applied:
            logger.warning("%d validation networks allow no correction of the table", fitted)
        return table, validated(table, networks, networks_ms)
    if applied and calibration.helps:
        table = apply_calibration(table, calibration)
        return table, validated(table, networks, networks_ms, unseen_ms=calibration.unseen_ms)
    if applied:
        before, after = calibration.error_before_percent, calibration.error_after_percent
        logger.info("not corrected: %.2f %% off as it is, %.2f %% corrected, no sure gain", before, after)
    table = replace(table, details={**table.details, "calibration": calibration.as_details(applied=False)})
    return table, validated(table, networks, networks_ms)


def _validate(table: LatencyTable, space: Space, params: ProfileLatencyParams, *, seed: int) -> list[Validated]:
    """Whole networks measured next to an external table, where this is its device."""
    if not is_of_this_device(table, params):
        return []
    networks, _ = _whole_networks(space, params, seed=seed)
    repeats = NETWORK_VISITS * params.repeats
    timings = time_networks(networks, params, resolution=table.resolution, repeats=repeats, seed=seed)
    return validated(table, networks, [timing.median_ms for timing in timings])


def is_of_this_device(table: LatencyTable, params: ProfileLatencyParams) -> bool:
    """Whether a table was made on this device, with these parameters."""
    backend = open_backend(params.backend, BackendOptions.of(params))
    names = ("backend", "precision", "channels_last", "threads", "num_classes")
    same = all(table.details.get(name) == getattr(params, name) for name in names)
    return same and table.device == device_of(backend, params.device)


def profile_metrics(table: LatencyTable, space: Space, rows: list[Validated]) -> dict[str, float]:
    """The content of metrics.json."""
    low_ms, high_ms = reachable_range_ms(space, table)
    calibration = table.details.get("calibration", {})
    measured = ("error_before_percent", "error_after_percent", "least_gain_percent", "scale", "offset_ms")
    return {
        **validation_metrics(rows),
        **{f"calibration_{name}": calibration[name] for name in measured if name in calibration},
        **({"calibration_applied": float(calibration["applied"])} if calibration else {}),
        "base_ms": table.base_ms,
        "favored_multiple": table.alignment,
        "width_penalty": table.width_penalty,
        "operations": len(table.curves),
        "knots": sum(len(curve.widths) for curve in table.curves.values()),
        "min_reachable_ms": low_ms,
        "max_reachable_ms": high_ms,
        "seconds": table.details.get("seconds", 0.0),
    }
