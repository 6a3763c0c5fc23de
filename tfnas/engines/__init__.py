"""Snakemake and DVC on one pipeline: what the Snakefile calls, and how each engine learns of the other's work."""
