"""Train the derived network of a target from scratch, on all classes (Appendix B)."""

from __future__ import annotations

from pathlib import Path

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

STAGE = "retrain"
OUTPUTS = ("weights.pt", "history.csv", "metrics.json")


def main() -> None:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--target", required=True, help="name of the target, a key of `targets`")
    parser.add_argument("--architecture", type=Path, required=True, help="architecture.json that derive wrote")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv that prepare_data wrote")
    parser.add_argument("--images", type=Path, required=True, help="images/ that prepare_data wrote")
    options = parser.parse_args()

    def check(params: Params) -> None:
        from tfnas.data.manifest import warn_of_changed_images
        from tfnas.train.sets import check_architecture

        check_architecture(options.architecture)
        warn_of_changed_images(params, options.manifest)

    inputs = [options.architecture, options.manifest, options.images]
    with open_job(STAGE, options, inputs=inputs, outputs=OUTPUTS, target=options.target, check=check) as job:
        from tfnas.space import Architecture, build_network
        from tfnas.stages.retrain import Training, run_training
        from tfnas.train.sets import retrain_sets

        architecture = Architecture.load(options.architecture)
        sets = retrain_sets(job.params, options.manifest, options.images)
        recipe, dropout = job.params.retrain, job.params.targets[options.target].dropout
        training = Training(
            lambda: build_network(architecture, sets.num_classes, dropout, recipe.drop_connect),
            sets,
            recipe,
            name=(STAGE, options.target),
            architecture=architecture,
            inputs=inputs,
            log_model=True,
        )
        run_training(job, training)


if __name__ == "__main__":
    run_script(main)
