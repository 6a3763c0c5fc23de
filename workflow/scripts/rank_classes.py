"""Rank the classes by EfficientNet-B0's accuracy over all training images (Appendix B)."""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("rank_classes")
