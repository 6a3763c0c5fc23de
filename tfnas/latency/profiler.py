"""Measuring the lookup table of a space on a device (Sec. 3.1, Appendices B, G)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tfnas.latency.backends import Backend, BackendOptions, device_of, open_backend, stopwatch_of
from tfnas.latency.probes import block_probe, fixed_parts
from tfnas.latency.rounds import Probe, split_repeats, time_probes
from tfnas.latency.table import Curve, LatencyTable, OperationKey
from tfnas.latency.timer import Stopwatch, Timer, Timing, measuring
from tfnas.runtime.artifacts import package_versions
from tfnas.runtime.devices import cpu_governor, find_device
from tfnas.runtime.schema import ProfileLatencyParams
from tfnas.runtime.seeding import derive_seed
from tfnas.space import Space

Point = tuple[OperationKey | str, int]  # an operation and a width, or a fixed part's name and 0


def profile_space(
    space: Space,
    params: ProfileLatencyParams,
    *,
    resolution: int,
    seed: int,
    backend: Backend | None = None,
    stopwatch: Stopwatch | None = None,
) -> LatencyTable:
    """Measure every operation of the space at `widths_per_operation` widths, and the fixed parts.

    The authors' script times every width on its own, one after the other; here widths between the knots
    are interpolated, and all points are measured in several rounds of random order. Latencies stay as
    measured: a wider block may come out faster.

    Args:
        resolution: height and width of the network's input.
        backend: default the one that `params` names.
        stopwatch: the clock; default the backend's own, or `tfnas.runtime.devices.time_calls`.

    Raises:
        UserError: the device or the backend is absent.
    """
    backend = backend or open_backend(params.backend, BackendOptions.of(params))
    device = find_device(params.device, source="profile_latency.device:")
    start = time.monotonic()
    ranges = operation_ranges(space, resolution)
    widths = {
        key: choose_widths(low, high, key.in_channels, params.widths_per_operation)
        for key, (low, high) in ranges.items()
    }
    probes: dict[Point, Probe] = {
        (key, width): block_probe(key, width, params.batch_size) for key in widths for width in widths[key]
    }
    parts = fixed_parts(space, resolution, params.num_classes, params.batch_size)
    probes |= {(name, 0): probe for name, probe in parts.items()}
    with measuring(params.threads):
        timings = time_probes(
            probes,
            timer=Timer(device, params.warmup_runs, stopwatch or stopwatch_of(backend)),
            backend=backend,
            repeats=params.repeats,
            seed=derive_seed(seed, "profile_latency"),
            label="profile",
        )
    parts_ms = {name: timings[name, 0].median_ms for name in parts}
    return LatencyTable(
        space=space.name,
        resolution=resolution,
        batch_size=params.batch_size,
        device=device_of(backend, params.device),
        base_ms=sum(parts_ms.values()),
        curves={key: _curve(widths[key], [timings[key, width] for width in widths[key]]) for key in widths},
        fixed_stages=tuple(stage.stage for stage in space.stages if stage.fixed is not None),
        details=_details(params, backend, parts_ms, time.monotonic() - start),
    )


def operation_ranges(space: Space, resolution: int) -> dict[OperationKey, tuple[int, int]]:
    """Every distinct operation of the space, with its (smallest, largest) width in any candidate.

    k3_e3 and k3_e6 of Table 1 without squeeze-and-excitation are one operation, of 2 to 8 times C_in.
    """
    fixed = {stage.stage for stage in space.stages if stage.fixed is not None}
    ranges: dict[OperationKey, tuple[int, int]] = {}
    for layer in space.layers(resolution):
        for candidate in space.candidates if layer.stage not in fixed else ():
            key = OperationKey.of_candidate(layer, candidate.kernel, candidate.se_channels(layer.in_channels))
            low, high = candidate.width_range(layer.in_channels)
            known_low, known_high = ranges.get(key, (low, high))
            ranges[key] = min(low, known_low), max(high, known_high)
    return ranges


def choose_widths(low: int, high: int, in_channels: int, count: int) -> tuple[int, ...]:
    """About `count` widths to measure: both ends, and odd widths evenly spaced between them.

    The ends are mostly multiples of 16 channels, which CPU kernels compute up to 7 % faster than the
    widths around them. Knots at such widths only would make nearly every other width look too fast, so
    the first and the last odd knot lie beside the ends.

    A block as wide as its input has no expansion convolution: where that lies within the range, both
    sides of the jump are measured.
    """
    if low <= in_channels < high:
        above = choose_widths(in_channels + 1, high, in_channels, count)
        return tuple(sorted({low, in_channels, *above}))
    inner = np.linspace(low + 1, high - 1, count - 2) if count > 3 else [(low + high) / 2] * (count - 2)
    odd = {min(int(width) | 1, (high - 2) | 1) for width in inner}
    return tuple(sorted({low, high, *(width for width in odd if low < width < high)}))


def _curve(widths: tuple[int, ...], timings: list[Timing]) -> Curve:
    return Curve(
        widths,
        tuple(timing.median_ms for timing in timings),
        tuple(timing.spread_ms for timing in timings),
        tuple(timing.repeats for timing in timings),
    )


def _details(
    params: ProfileLatencyParams, backend: Backend, parts_ms: dict[str, float], seconds: float
) -> dict[str, Any]:
    """How the table was measured, as it stands in its file."""
    return {
        "backend": backend.name,
        "backend_version": backend.version,
        "precision": params.precision,
        "channels_last": params.channels_last,
        "threads": params.threads,
        "warmup_runs": params.warmup_runs,
        "repeats": params.repeats,
        "rounds": len(split_repeats(params.repeats)),
        "num_classes": params.num_classes,
        "fixed_parts_ms": parts_ms,
        "cpu_governor": cpu_governor(),
        "packages": package_versions(),
        "seconds": round(seconds, 1),
    }
