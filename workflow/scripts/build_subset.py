"""Draw one class out of each accuracy group and split its images, for the search (Appendix B)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("build_subset")
