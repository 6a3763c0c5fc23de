"""Stage scale_baseline: a network that the search has to beat, at the target's latency, measured as derive's is.

`random_N` is drawn at random from the space and scaled to the latency by the table, as a searched network; `any_N` is
drawn over all sizes; any other name is a known network, as wide as the latency, measured end to end, allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from tfnas.jobs.artifacts import write_json
from tfnas.latency.backends import BackendOptions, device_of, open_backend
from tfnas.latency.baseline_network import BaselineNetwork
from tfnas.latency.known_networks import fit_width
from tfnas.latency.params import KNOWN, baseline_kind
from tfnas.latency.timing import Probe
from tfnas.latency.validation import time_modules
from tfnas.search.constraint import Constraint, read_constraint
from tfnas.search.random_networks import random_baseline
from tfnas.stages.job import Job


class Checked(NamedTuple):
    """The target's limit, and the network; None for a known one, whose width is to be measured."""

    constraint: Constraint
    network: BaselineNetwork | None


def check(job: Job) -> Checked:
    """The random network.

    Raises:
        UserError: the table is of another space or resolution, or no network reaches the target.
    """
    assert job.target is not None and job.network is not None
    constraint = read_constraint(job.params, job.target, job.inputs["table"])
    kind = baseline_kind(job.network)
    if kind == KNOWN:
        return Checked(constraint, None)
    drawn = random_baseline(constraint, job.target, job.network, job.params.seed)
    return Checked(constraint, BaselineNetwork(kind, job.network, drawn.architecture))


def run(job: Job, checked: Checked) -> None:
    """Write network.json and metrics.json, with the latency measured end to end, into `job.out`."""
    assert job.network is not None
    constraint, network = checked
    if network is None:
        scaled = fit_width(job.network, constraint.limit, partial(_measure_widths, job))
        network, measured_ms = BaselineNetwork(KNOWN, job.network, width=scaled.width), scaled.latency_ms
    else:
        (measured_ms,) = _measure(job, [network])
    profile = job.params.profile_latency
    metrics = {
        **_predicted(constraint, network),
        "measured_latency_ms": measured_ms,
        **network.size(job.params.resolution, profile.num_classes),
        **({} if network.width is None else {"width": network.width}),
    }
    network.save(job.out / "network.json")
    measured_on = device_of(open_backend(profile.backend, BackendOptions.of(profile)), profile.device)
    write_json(job.out / "metrics.json", {**metrics, "measured_on": measured_on, "table_of": constraint.cost.source})
    job.run.log_metrics(metrics)


def _predicted(constraint: Constraint, network: BaselineNetwork) -> dict[str, float]:
    """The target, and what the table says of a network of the space."""
    if network.architecture is None:
        return {f"target_{constraint.cost.unit}": constraint.limit}
    return constraint.metrics(network.architecture)


def _measure_widths(job: Job, widths: Sequence[float]) -> list[float]:
    assert job.network is not None
    return _measure(job, [BaselineNetwork(KNOWN, job.network, width=width) for width in widths])


def _measure(job: Job, networks: Sequence[BaselineNetwork]) -> list[float]:
    """Median latency of each in ms, on the device, batch and threads of `profile_latency`."""
    profile, size = job.params.profile_latency, job.params.resolution
    shape = (profile.batch_size, 3, size, size)
    probes = [Probe(partial(network.build, profile.num_classes), shape) for network in networks]
    timings = time_modules(probes, profile, repeats=job.params.derive.measure_repeats, seed=0)
    return [timing.median_ms for timing in timings]
