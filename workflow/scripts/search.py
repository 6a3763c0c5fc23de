"""Search the most accurate network of the space within the latency of a target (Sec. 3)."""

from __future__ import annotations

from pathlib import Path

from tfnas.runtime.schema import Params
from tfnas.runtime.stage import open_job, run_script, stage_parser

STAGE = "search"
OUTPUTS = ("supernet.pt", "history.csv", "metrics.json")


def main() -> None:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--target", required=True, help="name of the target, a key of `targets`")
    parser.add_argument("--train", type=Path, required=True, help="train.csv that build_subset wrote")
    parser.add_argument("--val", type=Path, required=True, help="val.csv that build_subset wrote")
    parser.add_argument("--images", type=Path, required=True, help="images/ that prepare_data wrote")
    parser.add_argument("--table", type=Path, required=True, help="latency_table.json that profile_latency wrote")
    options = parser.parse_args()

    def check(params: Params) -> None:
        from tfnas.search.constraint import read_constraint

        read_constraint(params, options.target, options.table)

    inputs = [options.train, options.val, options.images, options.table]
    with open_job(STAGE, options, inputs=inputs, outputs=OUTPUTS, target=options.target, check=check) as job:
        from tfnas.search.constraint import read_constraint
        from tfnas.search.job import run_search

        run_search(
            job,
            read_constraint(job.params, options.target, options.table),
            target=options.target,
            train=options.train,
            val=options.val,
            images=options.images,
            inputs=inputs,
        )


if __name__ == "__main__":
    run_script(main)
