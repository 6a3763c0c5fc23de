"""Write the page and the summary of all results."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("report")
