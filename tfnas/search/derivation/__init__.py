"""Deriving a network: the strongest one or the best within the budget, and its weights out of the supernet."""
