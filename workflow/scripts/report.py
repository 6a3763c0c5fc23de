"""Write the page and the summary of all results."""

from __future__ import annotations

from pathlib import Path

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params, load_params

STAGE = "report"
OUTPUTS = ("report.html", "summary.json", "summary.csv")


def main() -> None:
    parser = stage_parser(STAGE, __doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder with the results of all other stages")
    options = parser.parse_args()

    def check(params: Params) -> None:
        from tfnas.report.inputs import read_results

        read_results(params, options.results)

    from tfnas.report.inputs import required_files

    inputs = required_files(load_params(options.params), options.results)  # not the folder, which holds --out
    with open_job(STAGE, options, inputs=inputs, outputs=OUTPUTS, check=check) as job:
        from tfnas.stages.report import run_report

        run_report(job, options.results)


if __name__ == "__main__":
    run_script(main)
