"""TF-NAS: find the most accurate image classifier within a latency budget (Hu, Wu, He, ECCV 2020)."""

__version__ = "0.1.0"
