"""Devices and their clocks, several processes on one job, random seeds: code that can change results."""
