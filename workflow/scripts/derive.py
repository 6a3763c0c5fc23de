"""Derive the network of a searched supernet, and measure it (Eq. 10, 11)."""

from __future__ import annotations

from pathlib import Path

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

STAGE = "derive"
OUTPUTS = ("architecture.json", "metrics.json")


def main() -> None:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--target", required=True, help="name of the target, a key of `targets`")
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt that search wrote")
    parser.add_argument("--table", type=Path, required=True, help="latency_table.json that profile_latency wrote")
    options = parser.parse_args()

    def check(params: Params) -> None:
        from tfnas.search.constraint import read_constraint
        from tfnas.stages.derive import derive_architecture

        derive_architecture(read_constraint(params, options.target, options.table), options.supernet, options.target)

    inputs = [options.supernet, options.table]
    with open_job(STAGE, options, inputs=inputs, outputs=OUTPUTS, target=options.target, check=check) as job:
        from tfnas.search.constraint import read_constraint
        from tfnas.stages.derive import derive_architecture, run_derive

        constraint = read_constraint(job.params, options.target, options.table)
        run_derive(job, constraint, derive_architecture(constraint, options.supernet, options.target))


if __name__ == "__main__":
    run_script(main)
