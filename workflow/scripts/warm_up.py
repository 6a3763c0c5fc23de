"""Train the supernet while alpha and beta are frozen, once for all targets (Appendix B)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("warm_up")
