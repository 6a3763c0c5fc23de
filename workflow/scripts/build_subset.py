"""Draw one class out of each accuracy group and split its images, for the search (Appendix B)."""

from __future__ import annotations

from pathlib import Path

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

STAGE = "build_subset"
OUTPUTS = ("train.csv", "val.csv", "classes.csv", "images")


def main() -> None:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--class-accuracy", type=Path, required=True, help="class_accuracy.csv that rank_classes wrote")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv that prepare_data wrote")
    parser.add_argument("--images", type=Path, required=True, help="images/ that prepare_data wrote")
    options = parser.parse_args()

    def check(params: Params) -> None:
        from tfnas.data.manifest import warn_of_changed_images
        from tfnas.stages.build_subset import check_subset

        check_subset(params, options.class_accuracy)
        warn_of_changed_images(params, options.manifest)

    inputs = [options.class_accuracy, options.manifest, options.images]
    with open_job(STAGE, options, inputs=inputs, outputs=OUTPUTS, check=check) as job:
        from tfnas.stages.build_subset import run_build_subset

        run_build_subset(job, options.class_accuracy, options.manifest, options.images)


if __name__ == "__main__":
    run_script(main)
