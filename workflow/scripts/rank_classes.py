"""Rank the classes by EfficientNet-B0's accuracy over all training images (Appendix B)."""

from __future__ import annotations

from pathlib import Path

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

STAGE = "rank_classes"
OUTPUTS = ("class_accuracy.csv", "class_accuracy.svg", "metrics.json")


def main() -> None:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv that prepare_data wrote")
    parser.add_argument("--images", type=Path, required=True, help="images/ that prepare_data wrote")
    options = parser.parse_args()

    def check(params: Params) -> None:
        from tfnas.data.manifest import warn_of_changed_images
        from tfnas.stages.rank_classes import check_ranking

        check_ranking(params, options.manifest)
        warn_of_changed_images(params, options.manifest)

    with open_job(STAGE, options, inputs=[options.manifest, options.images], outputs=OUTPUTS, check=check) as job:
        from tfnas.stages.rank_classes import run_rank_classes

        run_rank_classes(job, options.manifest, options.images)


if __name__ == "__main__":
    run_script(main)
