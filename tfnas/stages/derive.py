"""Stage derive: a target's network, from its searched supernet by `derive.within` (Eq. 10, 11) or given; measured.

With `retrain.initial: supernet` also the network's weights in the supernet; else an empty state, whose bytes are always
the same: a search that ends with the same network again then does not repeat the retraining.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tfnas.jobs.artifacts import write_json
from tfnas.jobs.checkpoints import write_tensors
from tfnas.latency import measure_architecture_ms
from tfnas.latency.backends import BackendOptions, device_of, open_backend
from tfnas.search.constraint import read_constraint, read_table
from tfnas.search.cost import Latency
from tfnas.search.derivation.inheritance import inherited_state
from tfnas.search.result import read_searched
from tfnas.space import Architecture, count_macs, count_params
from tfnas.space.given import given_network
from tfnas.space.membership import violations
from tfnas.stages.job import Job


class Checked(NamedTuple):
    """A target's network, what the latency table says of it, and its weights in the supernet."""

    architecture: Architecture
    predicted: dict[str, float]  # in metrics.json; empty for a network outside of the table's space
    table_of: str  # the device of the table
    initial: dict[str, Tensor]  # to start training from; empty where they are not asked for, or there are none


def check(job: Job) -> Checked:
    """The target's network.

    Raises:
        UserError: a file is damaged, or was searched in another space or for another latency.
    """
    assert job.target is not None
    return _given(job) if job.params.targets[job.target].constraint.is_given else _searched(job)


def _given(job: Job) -> Checked:
    """The network that the target names; the table's prediction where it is one of the table's space."""
    wanted = job.params.targets[str(job.target)].constraint.architecture
    assert wanted is not None
    architecture = given_network(wanted, key=f"targets.{job.target}.constraint.architecture")
    space, table = read_table(job.params, job.inputs["table"])
    cost = Latency(table)
    is_member = next(violations(architecture, space), None) is None
    predicted = {f"table_{cost.name}_{cost.unit}": cost.value(architecture)} if is_member else {}
    return Checked(architecture, predicted, cost.source, {})


def _searched(job: Job) -> Checked:
    """The network of the target's searched supernet."""
    assert job.target is not None
    params = job.params
    constraint = read_constraint(params, job.target, job.inputs["table"])
    result = read_searched(job.inputs["supernet"], constraint, job.target)
    name = f"{constraint.space.name}-{job.target}"
    derived = result.derive(name, constraint, params.derive.within)
    initial = inherited_state(result.build_supernet(), derived) if params.retrain.inherits else {}
    return Checked(derived.architecture, constraint.metrics(derived.architecture), constraint.cost.source, initial)


def run(job: Job, checked: Checked) -> None:
    """Write architecture.json, initial.pt and metrics.json, with the latency measured end to end, into `job.out`.

    It is measured on this machine, even where the table is for another device: `measured_on` and `table_of` name both.
    """
    architecture, profile = checked.architecture, job.params.profile_latency
    repeats = job.params.derive.measure_repeats
    measured = measure_architecture_ms(architecture, profile, resolution=job.params.resolution, repeats=repeats)
    metrics = {
        **checked.predicted,
        "measured_latency_ms": measured.median_ms,
        "macs": count_macs(architecture, job.params.resolution, profile.num_classes),
        "params": count_params(architecture, profile.num_classes),
        "depth": len(architecture.blocks),
    }
    architecture.save(job.out / "architecture.json")
    write_tensors(checked.initial, job.out / "initial.pt")
    measured_on = device_of(open_backend(profile.backend, BackendOptions.of(profile)), profile.device)
    write_json(job.out / "metrics.json", {**metrics, "measured_on": measured_on, "table_of": checked.table_of})
    job.run.log_metrics(metrics)
