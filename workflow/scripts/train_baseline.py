"""Train a network that the search has to beat by the recipe of retrain (Appendix B)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("train_baseline")
