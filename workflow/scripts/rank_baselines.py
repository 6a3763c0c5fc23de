"""Evaluate the random networks to compare with in the searched supernet (Section 3)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("rank_baselines")
