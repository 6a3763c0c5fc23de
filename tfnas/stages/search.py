"""Stage search: the most accurate network of the space within the latency of a target (Sec. 3).

A target that names its network has nothing to search; its files say so.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from tfnas.compute import distributed
from tfnas.jobs.artifacts import write_json
from tfnas.search.constraint import Constraint, read_constraint
from tfnas.search.derivation.strongest import Derived
from tfnas.search.derivation.within_budget import can_be_filled
from tfnas.search.loop import search
from tfnas.search.params import untrained_above
from tfnas.search.result import SearchResult, WarmUp, load_warm_up, write_history, write_no_supernet
from tfnas.search.session import interrupted_run, log_to, open_session
from tfnas.stages.job import Job
from tfnas.stages.params import Params, searches_nothing, stage_params

logger = logging.getLogger("tfnas.search")


class Checked(NamedTuple):
    """What a search starts from."""

    constraint: Constraint
    warm_up: WarmUp


def reads(job: Job) -> list[Path]:
    """Its inputs; none where the network is given."""
    return [] if searches_nothing(job.params, job.stage.name, job.target) else list(job.inputs.values())


def check(job: Job) -> Checked | None:
    """The target's constraint, and the supernet that warm_up has trained; None where the network is given.

    Raises:
        UserError: a file is damaged or does not fit, or no network reaches the target.
    """
    if searches_nothing(job.params, job.stage.name, job.target):
        return None
    assert job.target is not None
    constraint = read_constraint(job.params, job.target, job.inputs["table"])
    values = stage_params(job.params, "warm_up")
    return Checked(constraint, load_warm_up(job.inputs["warm_up"], constraint.space, values))


def resumes(job: Job, checked: Checked | None) -> str | None:
    """The tracking run of this very job, where one was interrupted."""
    return None if checked is None else interrupted_run(job, checked.constraint.space)


def run(job: Job, checked: Checked | None) -> None:
    """Write supernet.pt, history.csv and metrics.json into `job.out`."""
    if checked is not None:
        _search(job, checked)
    elif distributed.rank() == 0:
        logger.info("%s: the network is given, nothing is searched", "/".join(job.name))
        reason = f"target {job.target} names its network (targets.{job.target}.constraint.architecture)"
        write_json(job.out / "metrics.json", write_no_supernet(job.out, reason))


def _search(job: Job, checked: Checked) -> None:
    """Search, and write.

    The checkpoint is discarded when the job ends well, so that one that fails to write does not search again.
    """
    constraint, warm_up = checked
    with open_session(job, constraint.space) as session:
        result = search(
            constraint,
            session.loaders,
            session.setting,
            warm_up=warm_up,
            checkpoints=session.checkpoints,
            on_epoch=log_to(job.run, constraint.space),
        )
        if distributed.rank() > 0:
            return
        assert job.target is not None
        derived = result.derive(job.target, constraint, job.params.derive.within)
        metrics = search_metrics(result, constraint, derived)
        batches = min(len(session.loaders.val), job.params.search.evaluation.batches)
        metrics["evaluation_images"] = batches * job.params.search.batch_size
        if job.params.search.elasticity_scaling is not False:
            _warn_off_target(metrics["gap_percent"], "/".join(job.name), _reason_below(derived, constraint, job.params))
        result.save(job.out / "supernet.pt")
        write_history(result.history, job.out / "history.csv")
        write_json(job.out / "metrics.json", metrics)
        job.run.log_metrics(metrics)
        job.at_end.append(session.discard)


def search_metrics(result: SearchResult, constraint: Constraint, derived: Derived) -> dict[str, float]:
    """The last epoch in numbers, and the network derived after it."""
    last = result.history[-1]
    assert last.expected_latency_ms is not None
    return {
        **constraint.metrics(derived.architecture),
        "expected_latency_ms": last.expected_latency_ms,
        "train_loss": last.train_loss,
        "train_top1_percent": last.train_top1,
        **last.accuracies(),
        **_end_of_warm_up(result),
        "alpha_entropy": last.alpha_entropy,
        "epochs": last.epoch,
        "num_classes": result.num_classes,
    }


def _end_of_warm_up(result: SearchResult) -> dict[str, float]:
    """The mean cross-entropy of the last epoch in which alpha was frozen, and what it should be below; or nothing."""
    frozen = [record.train_loss for record in result.history if record.architecture_loss is None]
    return {"warm_up_loss": frozen[-1], "untrained_above": untrained_above(result.num_classes)} if frozen else {}


def _warn_off_target(gap_percent: float, name: str, reason_below: str) -> None:
    if gap_percent > 0.0:
        logger.warning("%s: the derived network is %.2f %% above the target at its smallest widths", name, gap_percent)
    elif gap_percent < -1.0:
        logger.warning("%s: the derived network is %.2f %% below the target; %s", name, -gap_percent, reason_below)


def _reason_below(derived: Derived, constraint: Constraint, params: Params) -> str:
    """Why a scaled network stays below the target, and what to do."""
    if can_be_filled(derived, constraint):
        finer = (
            "; search.elasticity_scaling: true has finer steps" if params.search.elasticity_scaling is not True else ""
        )
        return f"its latency jumps past the target from one width to the next{finer}"
    if params.derive.within == "budget":
        return (
            "no network of the space has the target between its latencies at its smallest and its largest widths; a"
            " lower target would use the time up"
        )
    return (
        "its widths are as large as they may be, so a lower target, derive.within: budget or search.latency_loss:"
        " target_abs would use the time up"
    )
