"""Derive the network of a searched supernet, and measure it (Eq. 10, 11)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("derive")
