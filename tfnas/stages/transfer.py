"""Stage transfer: the retrained network of a target, fine-tuned on another image set (Appendix F)."""

from __future__ import annotations

from tfnas.space import Architecture
from tfnas.stages.job import Job
from tfnas.train.session import Training, load_architecture, network_size, run_training, transfer_sets
from tfnas.train.weights import transfer_network


def check(job: Job) -> Architecture:
    """The network.

    Raises:
        UserError: the file holds no network of RGB images.
    """
    return load_architecture(job.inputs["architecture"])


def run(job: Job, architecture: Architecture) -> None:
    """Write weights.pt, history.csv and metrics.json into `job.out`."""
    assert job.target is not None and job.dataset is not None
    sets = transfer_sets(job.params, job.dataset, job.inputs["data"])
    recipe, dropout = job.params.transfer, job.params.targets[job.target].dropout
    training = Training(
        lambda: transfer_network(
            architecture,
            job.inputs["weights"],
            sets.num_classes,
            dropout=dropout,
            drop_connect=recipe.drop_connect,
            layers=recipe.layers,
        ),
        sets,
        recipe,
        network_size(architecture, sets),
    )
    run_training(job, training)
