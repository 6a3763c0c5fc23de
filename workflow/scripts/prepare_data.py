"""List the images of the data set; make those of the default run (Appendix B, F)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("prepare_data")
