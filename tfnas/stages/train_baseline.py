"""Stage train_baseline: a network that the search has to beat, trained by the recipe of retrain on the same images.

From scratch: weights of a supernet or of a file (`retrain.initial`) belong to the found network alone. A teacher
(`retrain.teacher`) teaches it as well.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from tfnas.data.manifest import warn_of_changed_images
from tfnas.latency.baseline_network import BaselineNetwork
from tfnas.stages.job import Job
from tfnas.train.distillation import Teacher
from tfnas.train.params import SCRATCH
from tfnas.train.session import Training, retrain_sets, retrain_teacher, run_training

logger = logging.getLogger("tfnas.train")


class Checked(NamedTuple):
    """What is trained, and what it learns from besides the labels."""

    network: BaselineNetwork
    teacher: Teacher | None


def check(job: Job) -> Checked:
    """The network, and its teacher where there is one.

    Raises:
        UserError: a damaged file; a teacher that cannot be read or knows other classes.
    """
    warn_of_changed_images(job.params, job.inputs["manifest"])
    network = BaselineNetwork.load(job.inputs["baseline"])
    return Checked(network, retrain_teacher(job.params, job.inputs["manifest"], job.inputs["ranking"]))


def run(job: Job, checked: Checked) -> None:
    """Write history.csv, seeds.csv and metrics.json into `job.out`."""
    assert job.target is not None
    network, recipe = checked.network, job.params.retrain
    if recipe.initial != SCRATCH:
        logger.warning(
            "%s: starts from scratch, and the found network from retrain.initial: %s, so the comparison is unequal",
            "/".join(job.name),
            recipe.initial,
        )
    sets = retrain_sets(job.params, job.inputs["manifest"], job.inputs["images"])
    dropout = job.params.targets[job.target].dropout
    training = Training(
        lambda: network.build(sets.num_classes, dropout=dropout, drop_connect=recipe.drop_connect),
        sets,
        recipe,
        network.size(sets.resolution, sets.num_classes),
        seeds=recipe.seeds,
        write_weights=False,
        teacher=checked.teacher,
    )
    run_training(job, training)
