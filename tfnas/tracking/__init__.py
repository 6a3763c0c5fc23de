"""Tracking of jobs in MLflow, which only this room imports: runs, their store, and what it has not taken yet."""
