"""The report: one page and a summary of all results, next to the paper's tables."""
