"""Elasticity-scaling: the widths of a network, and how they are scaled to a limit."""
