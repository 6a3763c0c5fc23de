"""Fine-tune the retrained network of a target on another image set (Appendix F)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("transfer")
