"""List the images of the data set; make those of the default run (Appendix B, F)."""

from __future__ import annotations

from tfnas.stages.job import open_job, run_script, stage_parser
from tfnas.stages.params import Params

STAGE = "prepare_data"
OUTPUTS = ("manifest.csv", "classes.csv", "broken.csv", "folders.csv", "images", "transfer")


def main() -> None:
    options = stage_parser(STAGE, __doc__).parse_args()

    def check(params: Params) -> None:
        from tfnas.stages.prepare_data import check_sources

        check_sources(params)

    with open_job(STAGE, options, inputs=(), outputs=OUTPUTS, check=check) as job:
        from tfnas.stages.prepare_data import run_prepare_data

        run_prepare_data(job)


if __name__ == "__main__":
    run_script(main)
