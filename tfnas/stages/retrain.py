"""Stage retrain: the derived network of a target, trained from scratch on all classes (Appendix B)."""

from __future__ import annotations

from tfnas.data.manifest import warn_of_changed_images
from tfnas.space import Architecture, build_network
from tfnas.stages.job import Job
from tfnas.train.session import Training, load_architecture, retrain_sets, run_training


def check(job: Job) -> Architecture:
    """The network.

    Raises:
        UserError: the file holds no network of RGB images.
    """
    warn_of_changed_images(job.params, job.inputs["manifest"])
    return load_architecture(job.inputs["architecture"])


def run(job: Job, architecture: Architecture) -> None:
    """Write weights.pt, history.csv and metrics.json into `job.out`."""
    assert job.target is not None
    sets = retrain_sets(job.params, job.inputs["manifest"], job.inputs["images"])
    recipe, dropout = job.params.retrain, job.params.targets[job.target].dropout
    training = Training(
        lambda: build_network(architecture, sets.num_classes, dropout, recipe.drop_connect),
        sets,
        recipe,
        architecture,
        log_model=True,
    )
    run_training(job, training)
