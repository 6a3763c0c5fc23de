"""Bring a network that the search has to beat to a target's latency, and measure it."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("scale_baseline")
