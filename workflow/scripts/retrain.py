"""Train the derived network of a target from scratch, on all classes (Appendix B)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("retrain")
