"""Search the most accurate network of the space within the latency of a target (Sec. 3)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("search")
