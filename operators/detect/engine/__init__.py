"""What runs the detectors over a shard: the monitor, its panels, and what they tell."""
