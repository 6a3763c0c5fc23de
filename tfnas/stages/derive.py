"""Stage derive: from a searched supernet to its network, by `derive.within`, and measurements (Eq. 10, 11).

With `retrain.initial: supernet` also the network's weights in the supernet; else an empty state, whose bytes are always
the same: a search that ends with the same network again then does not repeat the retraining.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tfnas.jobs.artifacts import write_json
from tfnas.jobs.checkpoints import write_tensors
from tfnas.jobs.errors import UserError
from tfnas.latency import measure_architecture_ms
from tfnas.latency.backends import BackendOptions, device_of, open_backend
from tfnas.search.constraint import Constraint, read_constraint
from tfnas.search.inheritance import inherited_state
from tfnas.search.result import load_search_result
from tfnas.space import Architecture, count_macs, count_params
from tfnas.stages.job import Job

SUPERNET = "supernet"  # value of retrain.initial


class Checked(NamedTuple):
    """What is measured and written.

    Attributes:
        initial: the network's weights to start training from; empty where they are not asked for.
    """

    constraint: Constraint
    architecture: Architecture
    initial: dict[str, Tensor]


def check(job: Job) -> Checked:
    """The target's constraint, and the network of its searched supernet.

    Raises:
        UserError: the file is damaged, or was searched in another space or for another latency.
    """
    assert job.target is not None
    supernet, params = job.inputs["supernet"], job.params
    constraint = read_constraint(params, job.target, job.inputs["table"])
    result = load_search_result(supernet, constraint.space)
    if result.target_ms != constraint.limit:
        raise UserError(
            f"{supernet}: was searched for {result.target_ms:.6g} ms, target {job.target} now asks for"
            f" {constraint.limit:.6g} ms; run search again"
        )
    name = f"{constraint.space.name}-{job.target}"
    derived = result.derive(name, constraint, params.derive.within)
    initial = inherited_state(result.build_supernet(), derived) if params.retrain.initial == SUPERNET else {}
    return Checked(constraint, derived.architecture, initial)


def run(job: Job, checked: Checked) -> None:
    """Write architecture.json, initial.pt and metrics.json, with the latency measured end to end, into `job.out`.

    It is measured on this machine, even where the table is for another device: `measured_on` and `table_of` name both.
    """
    constraint, architecture, initial = checked
    profile = job.params.profile_latency
    repeats = job.params.derive.measure_repeats
    measured = measure_architecture_ms(architecture, profile, resolution=job.params.resolution, repeats=repeats)
    metrics = {
        **constraint.metrics(architecture),
        "measured_latency_ms": measured.median_ms,
        "macs": count_macs(architecture, job.params.resolution, profile.num_classes),
        "params": count_params(architecture, profile.num_classes),
        "depth": len(architecture.blocks),
    }
    architecture.save(job.out / "architecture.json")
    write_tensors(initial, job.out / "initial.pt")
    measured_on = device_of(open_backend(profile.backend, BackendOptions.of(profile)), profile.device)
    write_json(job.out / "metrics.json", {**metrics, "measured_on": measured_on, "table_of": constraint.cost.source})
    job.run.log_metrics(metrics)
