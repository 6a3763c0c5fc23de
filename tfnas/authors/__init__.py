"""Readers of the files that the TF-NAS authors publish or that their code writes."""

from tfnas.authors.image_list import read_image_list, to_samples
from tfnas.authors.latency_tables import read_latency_table
from tfnas.authors.model_config import read_config
from tfnas.authors.weights import load_weights, read_searched_supernet, read_weights

__all__ = [
    "load_weights",
    "read_config",
    "read_image_list",
    "read_latency_table",
    "read_searched_supernet",
    "read_weights",
    "to_samples",
]
