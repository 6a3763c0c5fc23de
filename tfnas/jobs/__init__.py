"""What every job needs and no result depends on: artifacts, checkpoints, locks, errors, progress, parameter files."""
