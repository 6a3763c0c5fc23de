"""Stage retrain: the derived network of a target, trained on all classes (Appendix B).

From scratch as in the paper, or from given weights (`retrain.initial`); by the labels as in the paper, or by a teacher
as well (`retrain.teacher`).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from tfnas.data.manifest import warn_of_changed_images
from tfnas.space import Architecture, build_network
from tfnas.stages.job import Job
from tfnas.stages.params import for_target
from tfnas.train.distillation import Teacher
from tfnas.train.params import SCRATCH
from tfnas.train.session import (
    Training,
    load_architecture,
    network_size,
    retrain_sets,
    retrain_teacher,
    run_training,
)
from tfnas.train.start import Start, read_start

logger = logging.getLogger("tfnas.train")


class Checked(NamedTuple):
    """What is trained, what it starts from, and what it learns from besides the labels."""

    architecture: Architecture
    start: Start | None
    teacher: Teacher | None


def check(job: Job) -> Checked:
    """The network, and where there are such, its weights and its teacher.

    Raises:
        UserError: the file holds no network of RGB images; weights of another architecture; a teacher that cannot be
            read or knows other classes.
    """
    warn_of_changed_images(job.params, job.inputs["manifest"])
    architecture = load_architecture(job.inputs["architecture"])
    teacher = retrain_teacher(job.params, job.inputs["manifest"], job.inputs["ranking"])
    return Checked(architecture, _start(job, architecture), teacher)


def run(job: Job, checked: Checked) -> None:
    """Write weights.pt, history.csv, seeds.csv and metrics.json into `job.out`."""
    assert job.target is not None
    architecture, start, teacher = checked
    if start is None and job.params.retrain.inherits:
        logger.info("%s: starts from scratch: its network comes from no supernet", "/".join(job.name))
    sets = retrain_sets(job.params, job.inputs["manifest"], job.inputs["images"])
    recipe, dropout = job.params.retrain, job.params.targets[job.target].dropout
    build = build_network if start is None else start.build
    training = Training(
        lambda: build(architecture, sets.num_classes, dropout, recipe.drop_connect),
        sets,
        recipe,
        network_size(architecture, sets),
        seeds=recipe.seeds,
        log_model=True,
        start=start,
        teacher=teacher,
    )
    run_training(job, training)


def _start(job: Job, architecture: Architecture) -> Start | None:
    assert job.target is not None
    recipe = job.params.retrain
    if recipe.initial == SCRATCH:
        return None
    path = job.inputs["initial"] if recipe.inherits else Path(for_target(recipe.initial, job.target))
    return read_start(path, architecture, inherited=recipe.inherits)
