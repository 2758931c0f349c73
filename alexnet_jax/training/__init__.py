"""Runs: the loop, the update rule, checkpoints, and resuming exactly."""
