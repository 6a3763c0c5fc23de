"""The stages of the pipeline: their registry, what their scripts share, and one file per stage."""
