"""Train the supernet while alpha and beta are frozen, once for all targets (Appendix B)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

if TYPE_CHECKING:
    from tfnas.stages.search import SearchInputs

STAGE = "warm_up"
OUTPUTS = ("supernet.pt", "history.csv", "metrics.json")


def main() -> None:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--train", type=Path, required=True, help="train.csv that build_subset wrote")
    parser.add_argument("--val", type=Path, required=True, help="val.csv that build_subset wrote")
    parser.add_argument("--images", type=Path, required=True, help="images/ that build_subset wrote")
    options = parser.parse_args()

    def check(params: Params) -> None:
        from tfnas.space import load_space

        load_space(params.space)

    files = [options.train, options.val, options.images]

    @cache
    def inputs() -> SearchInputs:
        from tfnas.stages.search import SearchInputs

        return SearchInputs(*files)

    def resumes(params: Params) -> str | None:
        from tfnas.stages.search import interrupted_run

        return interrupted_run(params, inputs())

    with open_job(STAGE, options, inputs=files, outputs=OUTPUTS, check=check, resumes=resumes) as job:
        from tfnas.stages.search import run_warm_up_job

        run_warm_up_job(job, inputs())


if __name__ == "__main__":
    run_script(main)
