"""Search the most accurate network of the space within the latency of a target (Sec. 3)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

if TYPE_CHECKING:
    from tfnas.search.constraint import Constraint
    from tfnas.search.result import WarmUp
    from tfnas.stages.search import SearchInputs

STAGE = "search"
OUTPUTS = ("supernet.pt", "history.csv", "metrics.json")


def main() -> None:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--target", required=True, help="name of the target, a key of `targets`")
    parser.add_argument("--train", type=Path, required=True, help="train.csv that build_subset wrote")
    parser.add_argument("--val", type=Path, required=True, help="val.csv that build_subset wrote")
    parser.add_argument("--images", type=Path, required=True, help="images/ that build_subset wrote")
    parser.add_argument("--table", type=Path, required=True, help="latency_table.json that profile_latency wrote")
    parser.add_argument("--warm-up", type=Path, required=True, help="supernet.pt that warm_up wrote")
    options = parser.parse_args()
    files = [options.train, options.val, options.images, options.table, options.warm_up]

    def read(params: Params) -> tuple[Constraint, WarmUp]:
        from tfnas.search.constraint import read_constraint
        from tfnas.search.result import load_warm_up
        from tfnas.stages.params import stage_params

        constraint = read_constraint(params, options.target, options.table)
        return constraint, load_warm_up(options.warm_up, constraint.space, stage_params(params, "warm_up"))

    def check(params: Params) -> None:
        read(params)

    @cache
    def inputs() -> SearchInputs:
        from tfnas.stages.search import SearchInputs

        return SearchInputs(*files[:3], tuple(files[3:]))

    def resumes(params: Params) -> str | None:
        from tfnas.stages.search import interrupted_run

        return interrupted_run(params, inputs(), options.target)

    with open_job(
        STAGE, options, inputs=files, outputs=OUTPUTS, target=options.target, check=check, resumes=resumes
    ) as job:
        from tfnas.stages.search import run_search

        run_search(job, *read(job.params), inputs(), target=options.target)


if __name__ == "__main__":
    run_script(main)
