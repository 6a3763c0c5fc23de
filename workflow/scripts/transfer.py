"""Fine-tune the retrained network of a target on another image set (Appendix F)."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfnas.jobs.errors import UserError
from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

STAGE = "transfer"
OUTPUTS = ("weights.pt", "history.csv", "metrics.json")


def main() -> None:
    options = _parse_options()

    def check(params: Params) -> None:
        known = params.transfer.datasets
        if options.dataset not in known:
            names = ", ".join(known)
            raise UserError(f"{options.params}: transfer.datasets has no {options.dataset!r}; known: {names}")
        from tfnas.train.sets import check_architecture

        check_architecture(options.architecture)

    inputs = [options.architecture, options.weights, options.data]
    with open_job(
        STAGE, options, inputs=inputs, outputs=OUTPUTS, target=options.target, dataset=options.dataset, check=check
    ) as job:
        from tfnas.space import Architecture
        from tfnas.stages.retrain import Training, run_training
        from tfnas.train.sets import transfer_sets
        from tfnas.train.weights import transfer_network

        architecture = Architecture.load(options.architecture)
        sets = transfer_sets(job.params, options.dataset, options.data)
        recipe, dropout = job.params.transfer, job.params.targets[options.target].dropout
        training = Training(
            lambda: transfer_network(
                architecture,
                options.weights,
                sets.num_classes,
                dropout=dropout,
                drop_connect=recipe.drop_connect,
                layers=recipe.layers,
            ),
            sets,
            recipe,
            name=(STAGE, options.target, options.dataset),
            architecture=architecture,
            inputs=inputs,
        )
        run_training(job, training)


def _parse_options() -> argparse.Namespace:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--target", required=True, help="name of the target, a key of `targets`")
    parser.add_argument("--dataset", required=True, help="name of the image set, one of `transfer.datasets`")
    parser.add_argument("--architecture", type=Path, required=True, help="architecture.json that derive wrote")
    parser.add_argument("--weights", type=Path, required=True, help="weights.pt that retrain wrote")
    parser.add_argument("--data", type=Path, required=True, help="transfer/ that prepare_data wrote")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
