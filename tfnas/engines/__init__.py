"""Snakemake and DVC over one pipeline: what the Snakefile calls, and how each learns of the other's work."""
