"""Figures as SVG: of the search, the trainings, the results, the paper and the measuring commands."""
