"""Runs the detectors over a shard: the monitor, its panels, and the teller of findings and alerts."""
