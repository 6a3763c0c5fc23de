"""Measure the latency of every operation of the space on a device, and check the table on whole networks (Sec. 3.1).

Where profile_latency.table names a file, that table is checked and copied instead.
"""

from __future__ import annotations

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

STAGE = "profile_latency"
OUTPUTS = ("latency_table.json", "validation.csv", "metrics.json")


def main() -> None:
    options = stage_parser(STAGE, __doc__).parse_args()

    def check(params: Params) -> None:
        from tfnas.authors.latency_tables import open_foreign_table
        from tfnas.stages.profile_latency import check_profile

        check_profile(params)
        open_foreign_table(params)

    with open_job(STAGE, options, inputs=(), outputs=OUTPUTS, check=check) as job:
        from tfnas.authors.latency_tables import open_foreign_table
        from tfnas.space import load_space
        from tfnas.stages.profile_latency import run_profile

        run_profile(job, load_space(job.params.space), open_foreign_table(job.params))


if __name__ == "__main__":
    run_script(main)
